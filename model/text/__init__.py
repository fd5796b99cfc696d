"""Text to tokens: normalization, phonemes from espeak-ng, and the fixed symbol table."""

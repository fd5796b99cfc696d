"""Text to tokens: normalisation, phones by espeak-ng, and the fixed symbol table."""

from model.text.encode import TokenSequence, encode
from model.text.errors import TextError
from model.text.symbols import NUM_STRESSES, NUM_SYMBOLS, symbols_hash

__all__ = ["NUM_STRESSES", "NUM_SYMBOLS", "TextError", "TokenSequence", "encode", "symbols_hash"]

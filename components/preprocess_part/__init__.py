"""The `preprocess_part` step: one part of a corpus to shards, beside the others."""

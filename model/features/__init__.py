"""Features: extraction from a corpus to shards, and batches for training and evaluation."""

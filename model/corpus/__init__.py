"""Corpora: reading or generating them, checking every clip, and splitting them."""

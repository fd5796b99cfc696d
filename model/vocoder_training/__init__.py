"""Training and fine-tuning of neural vocoders."""

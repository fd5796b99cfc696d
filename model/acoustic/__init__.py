"""The acoustic model: text to mel spectrogram."""

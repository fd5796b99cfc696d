"""What vocoders refuse; each message says what is wrong, where, and what to do."""


class VocoderError(ValueError):
    """A mel spectrogram that the vocoder cannot turn into sound, or weights that are missing or do not fit."""


class CheckpointFormatError(VocoderError):
    """A vocoder file is missing, damaged, of another architecture or made for other mel settings."""

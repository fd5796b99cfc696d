"""Exceptions that several modules raise."""


class MyXTTSError(Exception):
    """Base class of every error that a user can fix; the message says what is wrong, where, and how to fix it."""


class CorpusError(MyXTTSError):
    """A corpus cannot be made, read, checked or split; the message says why and how to fix it."""


class FeatureError(MyXTTSError):
    """Features are missing, damaged, or made with other settings; the message names both settings and the fix."""


class TextError(MyXTTSError):
    """A text cannot be spoken, or its language is unknown; the message says which and how to fix it."""


class VocoderError(MyXTTSError):
    """A vocoder cannot synthesize a mel spectrogram, or its weights are missing or incompatible."""


class CheckpointFormatError(VocoderError):
    """A vocoder's file is missing, damaged, of another architecture, or made for other mel settings."""

"""Exceptions that several modules raise."""


class MyXTTSError(Exception):
    """Base class of every error that a user can fix; its message says what is wrong, where, and what to do."""


class CorpusError(MyXTTSError):
    """A corpus cannot be made, read, checked or split as a whole; the message says why and what to do."""


class FeatureError(MyXTTSError):
    """Features are missing, damaged, or made with other settings; the message names both sides and the cure."""


class TextError(MyXTTSError):
    """A text cannot be spoken, or a language is unknown; the message says which and what to do."""


class VocoderError(MyXTTSError):
    """A mel spectrogram that the vocoder cannot turn into sound, or weights that are missing or do not fit."""


class CheckpointFormatError(VocoderError):
    """A vocoder file is missing, damaged, of another architecture or made for other mel settings."""

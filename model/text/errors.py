"""The error of this package."""


class TextError(ValueError):
    """A text cannot be spoken, or a language is unknown; the message says which and what to do."""

"""The error of this package."""


class CorpusError(ValueError):
    """A corpus cannot be made, read, checked or split as a whole; the message says why and what to do."""

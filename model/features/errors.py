"""The one error of this room."""


class FeatureError(RuntimeError):
    """Features are missing, damaged, or made with other settings; the message names both sides and the cure."""

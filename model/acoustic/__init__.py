"""The acoustic model and its parts."""

from model.acoustic.conditioning import Reference, Style, StyleError
from model.acoustic.model import AcousticModel, Inventory, ModelOutput, Synthesis

__all__ = ["AcousticModel", "Inventory", "ModelOutput", "Reference", "Style", "StyleError", "Synthesis"]

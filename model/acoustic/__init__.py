"""The acoustic model and its parts."""

from model.acoustic.conditioning import Reference, Style, StyleError
from model.acoustic.model import AcousticModel, Inventory, ModelOutput, ProsodyShift, Synthesis

__all__ = ["AcousticModel", "Inventory", "ModelOutput", "ProsodyShift", "Reference", "Style", "StyleError", "Synthesis"]

"""Settings of the whole system: schema, presets, resolution with provenance."""

from model.config.resolution import ConfigError, Resolved, batch_range, resolve, settings_hash, subset
from model.config.schema import Config

__all__ = ["Config", "ConfigError", "Resolved", "batch_range", "resolve", "settings_hash", "subset"]

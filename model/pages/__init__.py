"""Self-contained HTML pages with one style: for narrow screens, dark mode, keyboards and screen readers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STYLE = Path(__file__).with_name("style.css")


def render(template: Path, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """Returns a page: a Jinja template beside its module, which includes `{{ style }}` in its head.

    Args:
        template: The file; every value is escaped.
        filters: Filters by name.
        values: Variables of the template; an undefined one is an error.
    """
    import jinja2  # imported here, because commands without a page do not need it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(filters or {})
    # The style has no markup of its own, and quotes in it must not be escaped.
    style = jinja2.utils.markupsafe.Markup(STYLE.read_text("utf-8"))
    return environment.get_template(template.name).render(style=style, **values)


def audio_url(samples: np.ndarray, sample_rate: int) -> str:
    """Returns lossless audio (FLAC) as a data URL."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), sample_rate, format="FLAC", subtype="PCM_16")
    return data_url(buffer.getvalue(), "audio/flac")


def data_url(content: bytes, media_type: str) -> str:
    """Returns a file as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"

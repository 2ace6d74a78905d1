"""How many layers a network file may have."""

from __future__ import annotations

import re

from paratrain.errors import PrototxtError

__all__ = ["LARGEST_LAYER_COUNT", "check_text"]

LARGEST_LAYER_COUNT = 50_000
"""The deepest networks that were published have some thousand layers, recurrent ones unrolled some ten thousand."""

_LAYER = re.compile(r"\blayers?\s*:?\s*[{<]")


def check_text(text: str, path: str | None = None) -> None:
    """Raise PrototxtError for a prototxt with more than LARGEST_LAYER_COUNT layers, before it is parsed: that would take minutes
    and gigabytes.
    """
    if text.count("layer") <= LARGEST_LAYER_COUNT:
        return
    count = sum(1 for _ in _LAYER.finditer(text))
    if count > LARGEST_LAYER_COUNT:
        raise PrototxtError(f"this network has {count:,} layers; paratrain takes at most {LARGEST_LAYER_COUNT:,}", path)

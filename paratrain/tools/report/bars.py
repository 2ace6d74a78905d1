"""Bars of several parts, one below the other."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Bar", "bars"]


@dataclass(frozen=True)
class Bar:
    """A label, the sizes of the parts, and what is written behind."""

    label: str
    sizes: Sequence[float]
    figure: str


def bars(entries: Sequence[Bar], parts: Sequence[str]) -> str:
    """The bars, with a legend of the parts; the longest is as wide as there is room."""
    longest = max((sum(entry.sizes) for entry in entries), default=0.0) or 1.0
    legend = "".join(
        f'<li><span class="key b{place}"></span>{html.escape(name)}</li>' for place, name in enumerate(parts)
    )
    rows = []
    for entry in entries:
        pieces = "".join(
            f'<i class="b{place}" style="width:{100 * size / longest:.3f}%" title="{html.escape(parts[place])}: '
            f'{size / (sum(entry.sizes) or 1):.1%}"></i>'
            for place, size in enumerate(entry.sizes)
            if size > 0
        )
        rows.append(
            f'<div class="row"><span class="label">{html.escape(entry.label)}</span><span class="bar">{pieces}</span>'
            f'<span class="figure">{html.escape(entry.figure)}</span></div>'
        )
    return f'<ul class="legend">{legend}</ul>{"".join(rows)}'

"""The tree over the ranks as inline SVG: a line for each rank, below its parent, with where it runs."""

from __future__ import annotations

import html
from collections.abc import Sequence

from paratrain.topology.tree import Tree

__all__ = ["MOST_RANKS", "draw_tree"]

MOST_RANKS = 64
_ROW = 26.0
_RADIUS = 7.0
_SIZES = {
    "wide": (600.0, 38.0),
    "narrow": (330.0, 22.0),
}  # width, and how far a child stands to the right of its parent
_CHARACTER = 6.9
_COLOURS = 6


def draw_tree(tree: Tree, hosts: Sequence[str], threads: Sequence[int]) -> str:
    """The drawing, for a wide page and for a narrow one. A line is dashed where it leads to another host."""
    names = list(dict.fromkeys(hosts))
    order = _depth_first(tree)
    levels = tree.levels()
    drawings = []
    for kind, (width, indent) in _SIZES.items():
        indent = min(indent, (width - 200) / max(1, tree.depth))
        height = _ROW * len(order) + 8
        row = {rank: 4 + _ROW * (place + 0.5) for place, rank in enumerate(order)}
        parts = [
            f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="tree of ranks"><title>tree of ranks</title>'
        ]
        for parent, child in tree.edges():
            x, end = 12 + indent * levels[parent], 12 + indent * levels[child]
            dashed = " dashed" if _host(hosts, parent) != _host(hosts, child) else ""
            parts.append(
                f'<path class="edge{dashed}" d="M{x:.1f} {row[parent] + _RADIUS:.1f}V{row[child]:.1f}H{end - _RADIUS:.1f}"/>'
            )
        for rank in order:
            x, y = 12 + indent * levels[rank], row[rank]
            host = _host(hosts, rank)
            colour = names.index(host) % _COLOURS if host else 0
            parts.append(f'<circle class="f{colour}" cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS:g}"/>')
            text = _label(rank, tree, host, threads)
            most = int((width - x - 16) / _CHARACTER)
            shown = text if len(text) <= most else text[: most - 1] + "…"
            parts.append(
                f'<text x="{x + 13:.1f}" y="{y + 4:.1f}"><title>{html.escape(text)}</title>{html.escape(shown)}</text>'
            )
        drawings.append(f'<div class="{kind}">{"".join(parts)}</svg></div>')
    return "".join(drawings)


def _depth_first(tree: Tree) -> list[int]:
    order, waiting = [], [tree.root]
    while waiting:
        rank = waiting.pop()
        order.append(rank)
        waiting.extend(reversed(tree.children[rank]))
    return order


def _host(hosts: Sequence[str], rank: int) -> str:
    return hosts[rank] if rank < len(hosts) else ""


def _label(rank: int, tree: Tree, host: str, threads: Sequence[int]) -> str:
    words = [f"rank {rank}"]
    if rank == tree.root:
        words.append("root")
    if host:
        words.append(host)
    if rank < len(threads):
        words.append(f"{threads[rank]} thread{'' if threads[rank] == 1 else 's'}")
    return ", ".join(words)

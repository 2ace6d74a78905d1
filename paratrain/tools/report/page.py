"""The page: everything in one file."""

from __future__ import annotations

import html
import math
import statistics
import time

from paratrain.tools.report import sections
from paratrain.tools.report.style import STYLE
from paratrain.tools.runs.run import Run

__all__ = ["make_page"]


def make_page(run: Run, title: str | None = None, picture: str | None = None) -> str:
    """The HTML of a run, with a ``picture`` of its machine in SVG. It asks nothing of any network, and runs no script."""
    name = title or run.facts.get("net") or run.name
    body = [
        f"<header><h1>{html.escape(name)}</h1><p class=soft>{html.escape(_subtitle(run))}</p>{_tiles(run)}</header>",
        sections.curves(run),
        sections.speed(run),
        sections.ranks(run),
        sections.machine(picture),
        sections.layers(run),
        sections.warnings(run),
        sections.settings(run),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(name)}: a run of paratrain</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _subtitle(run: Run) -> str:
    words = [run.name]
    if run.begun_at is not None:
        words.append("begun " + time.strftime("%Y-%m-%d %H:%M", time.localtime(run.begun_at)))
    return ", ".join(words)


def _tiles(run: Run) -> str:
    """The numbers that are looked for first."""
    tiles: list[tuple[str, str]] = []
    most = run.facts.get("max_iter")
    tiles.append(("iterations", f"{run.last_iteration:,}" + (f" of {most:,}" if most else "")))
    losses = [value for _, value in sorted(run.training.get("loss", {}).items())]
    if losses:
        tiles.append(("last loss of training", f"{losses[-1]:.4g}"))
    for (net, output), series in run.named_tests("accuracy").items():
        finite = [value for value in series.values() if math.isfinite(value)]
        if finite and len(tiles) < 4:
            tiles.append((f"best {output}" + (f", test net {net}" if net else ""), f"{max(finite):.2%}"))
    speeds = list(run.training.get("images_per_s", {}).values())
    if speeds:
        tiles.append(("images a second", f"{statistics.median(speeds):,.0f}"))
    seconds = max((*run.training_seconds.values(), *run.test_seconds.values()), default=0.0)
    if seconds:
        tiles.append(("time", _duration(seconds)))
    if hosts := run.facts.get("hosts"):
        tiles.append(("ranks", f"{len(hosts)} on {len(set(hosts))} host{'s' if len(set(hosts)) > 1 else ''}"))
    if per_epoch := run.facts.get("iterations_per_epoch"):
        tiles.append(("epochs", f"{run.last_iteration / per_epoch:.3g}"))
    if run.warnings:
        tiles.append(("warnings", str(len(run.warnings))))
    items = "".join(f'<div class="tile"><b>{html.escape(value)}</b><span class="soft">{html.escape(name)}</span></div>'
                    for name, value in tiles)  # fmt: skip
    return f'<div class="tiles">{items}</div>'


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"

"""The two files that scripts/gpu-check and scripts/gpu-bench leave: everything as JSON, and a short table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_sections import Outcome
from machine import describe

__all__ = ["file_name", "write_report"]

_VERDICTS = {("is_right", True): "right", ("is_right", False): "**WRONG**", ("is_reached", True): "reached",
             ("is_reached", False): "missed"}  # fmt: skip


def file_name(gpu: str) -> str:
    """The name of a GPU as it stands in names of files: ``NVIDIA H100 80GB HBM3`` is ``h100-80gb-hbm3``."""
    words = re.findall(r"[a-z0-9]+", gpu.lower())
    return "-".join(word for word in words if word != "nvidia") or "unknown"


def write_report(
    folder: Path, prefix: str, command: str, outcomes: Sequence[Outcome], *, gpu: str, seconds: float, is_partial: bool
) -> tuple[Path, Path]:
    """Write ``PREFIX-GPU.json`` and ``PREFIX-GPU.md`` into ``folder`` and return their paths; ``PREFIX-GPU-partial`` where
    not all sections ran as they should.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{prefix}-{file_name(gpu)}{'-partial' if is_partial else ''}"
    paths = folder / f"{stem}.json", folder / f"{stem}.md"
    head = describe("cupy-cuda13x", "nvidia-cudnn-frontend", "torch")
    values = {
        "gpu": gpu, "command": command, "machine": head.splitlines(), "seconds": seconds,
        "sections": [outcome.values for outcome in outcomes],
    }  # fmt: skip
    paths[0].write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text("\n".join(_lines(command, head, outcomes, gpu, seconds)) + "\n", encoding="utf-8")
    return paths


def _lines(command: str, head: str, outcomes: Sequence[Outcome], gpu: str, seconds: float) -> list[str]:
    environment = next((outcome.notes for outcome in outcomes if outcome.name == "environment"), {})
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    lines = [f"# {gpu}", "", f"`{command}`, {seconds:.0f} s", "", head]
    if versions:
        lines.append(f"- {versions}")
    lines += ["", "| section | | s | |", "|---|---|---|---|"]
    lines += [f"| {one.name} | {one.status} | {one.seconds:.1f} | {_cell(one.reason)} |" for one in outcomes]
    for outcome in outcomes:
        shown = _shown(outcome.rows)
        if shown:
            lines += ["", f"## {outcome.name}", "", "| what | asked | found | |", "|---|---|---|---|"]
            lines += [_row(row) for row in shown]
        for title, table in outcome.notes.get("tables", {}).items():
            lines += ["", f"### {title}", "", *table]
    return lines


def _shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows but those of many checks that are right: one line stands for them."""
    right = [row for row in rows if row.get("is_right")]
    if len(right) <= 12:
        return list(rows)
    rest = [row for row in rows if not row.get("is_right")]
    return [{"what": f"{len(right)} checks", "asked": right[0]["asked"], "found": "", "is_right": True}, *rest]


def _row(row: dict[str, Any]) -> str:
    verdict = next((word for (key, value), word in _VERDICTS.items() if row.get(key) is value), "")
    return f"| {_cell(row['what'])} | {_cell(row['asked'])} | {_cell(row['found'])} | {verdict} |"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")

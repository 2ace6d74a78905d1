"""The two files that scripts/gpu-check and scripts/gpu-bench leave: everything as JSON, and a short table."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_sections import Outcome
from machine import describe

__all__ = ["Report", "check_writable", "file_name", "summary", "write_report"]

_MOST_WRONG = 16
_SAME = 60
"""Lines whose first so many characters of what was found are the same count as one in the summary."""
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
    texts = json.dumps(values, indent=1), "\n".join(_lines(command, head, outcomes, gpu, seconds))
    for path, text in zip(paths, texts, strict=True):
        unfinished = path.with_name(f"{path.name}.new")  # whoever is ended in the middle leaves the file of before
        unfinished.write_text(f"{text}\n", encoding="utf-8")
        unfinished.replace(path)
    return paths


def check_writable(folder: Path) -> None:
    """Make the folder of the reports. Raises OSError where none can be written there, before anything is run for them."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


class Report:
    """The files of a run, written anew with each section: ``PREFIX-GPU-partial`` until it has finished as a whole."""

    def __init__(self, folder: Path, prefix: str, command: str, gpu: str, names: Sequence[str]) -> None:
        self._given = folder, prefix, command
        self._gpu, self._names, self._begin = gpu, list(names), time.monotonic()
        self._found: dict[str, Outcome] = {}

    @property
    def outcomes(self) -> list[Outcome]:
        """What is known, in the order of the sections."""
        return [self._found[name] for name in self._names if name in self._found]

    def add(self, outcome: Outcome) -> None:
        """Print the line of a section, and write what is known."""
        print(outcome.line, flush=True)
        self._found[outcome.name] = outcome
        self._write(is_partial=True)

    def finish(self, *, is_whole: bool) -> tuple[Path, Path]:
        """Write the last of it and return the files; those of a whole run take the place of the partial ones."""
        partial = self._write(is_partial=True)
        if not is_whole:
            return partial
        written = self._write(is_partial=False)
        for path in partial:
            path.unlink()
        return written

    def _write(self, *, is_partial: bool) -> tuple[Path, Path]:
        seconds = time.monotonic() - self._begin
        return write_report(*self._given, self.outcomes, gpu=self._gpu, seconds=seconds, is_partial=is_partial)


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """What is wrong, the first of each section before others, and after it all goals with what was found."""
    named = []
    for outcome in outcomes:
        said = [(_text(row), row["found"]) for row in outcome.rows if row.get("is_right") is False]
        if outcome.status == "FAILED" and not said:
            said = [(" ".join(outcome.reason.split()), outcome.reason)]
        named.append([(f"{outcome.name}: {text}", found) for text, found in said])
    ordered = [pair for depth in itertools.zip_longest(*named) for pair in depth if pair is not None]
    causes: dict[str, list[str]] = {}  # what is found, if it says much, is the same mistake in all lines that have it
    for line, found in ordered:
        causes.setdefault(found[:_SAME] if len(found) >= _SAME else line, []).append(line)
    lines = ["wrong:"] if causes else []
    for alike in list(causes.values())[:_MOST_WRONG]:
        more = f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else ""
        lines.append(f"  {alike[0][: 240 - len(more)]}{more}")
    if len(causes) > _MOST_WRONG:
        lines.append(f"  and {sum(map(len, list(causes.values())[_MOST_WRONG:]))} more")
    goals = [row for outcome in outcomes for row in outcome.rows if "is_reached" in row]
    lines += ["goals:"] if goals else []
    return lines + [f"  {'reached' if row['is_reached'] else 'missed ':<8}{_text(row)[:160]}" for row in goals]


def _text(row: dict[str, Any]) -> str:
    asked = f" (asked {row['asked']})" if row["asked"] else ""
    return " ".join(f"{row['what']}: {row['found']}{asked}".split())


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

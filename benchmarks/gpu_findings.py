"""What one section of scripts/gpu-check or scripts/gpu-bench finds, in a file that grows with every finding."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import REPOSITORY

__all__ = ["FROM_VARIABLE", "LOST", "Findings", "gpu_is_lost"]

if str(REPOSITORY) not in sys.path:  # the checkout's own package, and the helpers of its tests
    sys.path.insert(0, str(REPOSITORY))


FROM_VARIABLE = "PARATRAIN_SECTION_FROM"
"""The number of the first part that is to be tried: in a process that goes on where another has ended."""
LOST = 87
"""The exit code of a process that no longer can use the GPU and wants to go on in another one."""
_TRACEBACK = 8000
"""Characters of a traceback that are kept, the last ones."""


class Findings:
    """Rows of a table (what, asked, found, right or not) and notes, kept in ``path`` so that a crash loses nothing.

    A check is right or wrong, and a wrong one fails its section. A goal is reached or missed: speed fails nothing, as what else
    runs on the machine has a part in it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self.skipped = ""
        self._at: list[Any] | None = None
        self._first = int(os.environ.get(FROM_VARIABLE, "0"))
        if self._first and path is not None:
            before = json.loads(path.read_text(encoding="utf-8"))
            self.rows, self.notes = before["rows"], before["notes"]
        self.save()

    def each(self, names: Sequence[str]) -> Iterator[str]:
        """The parts of the section, those left out that an earlier process has tried. Which one is at work is kept, so that where
        this process crashes, hangs or loses the GPU another one goes on behind it (`gpu_sections.run_sections` sees to that).
        """
        for number, name in enumerate(names):
            if number < self._first:
                continue
            self._at, count = [number, name], len(self.rows)
            self.save()
            yield name
            if any(row.get("is_right") is False for row in self.rows[count:]) and gpu_is_lost():
                print(f"{name}: CUDA takes no more work from this process", flush=True)
                os._exit(LOST)
        self._at = None
        self.save()

    def check(self, what: str, is_right: bool, *, asked: str = "", found: str = "") -> None:
        """Add a row that is right or wrong."""
        self._add({"kind": "check", "what": what, "asked": asked, "found": found, "is_right": bool(is_right)})

    def goal(self, what: str, is_reached: bool | None, *, asked: str = "", found: str = "") -> None:
        """Add a row about speed; None where nothing was asked."""
        row = {"kind": "goal", "what": what, "asked": asked, "found": found}
        self._add(row if is_reached is None else {**row, "is_reached": bool(is_reached)})

    def note(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold, for the file alone."""
        self.notes[key] = value
        self.save()

    def skip(self, reason: str) -> None:
        """Say that nothing could be tried."""
        self.skipped = reason
        print(f"skipped: {reason}", flush=True)
        self.save()

    @contextmanager
    def trying(self, what: str, *, asked: str = "") -> Iterator[None]:
        """Note an exception in the block as a check that has failed, and go on behind it."""
        try:
            yield
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            lines = (str(error) or type(error).__name__).strip().splitlines() or [type(error).__name__]
            said = " ".join(line.strip() for line in lines if line.strip())
            self.check(what, False, asked=asked, found=f"{type(error).__name__}: {said[:300]}")
            self.rows[-1]["traceback"] = traceback.format_exc()[-_TRACEBACK:]
            self.save()

    @property
    def exit_code(self) -> int:
        """0, or 1 if a check has failed."""
        return int(any(row.get("is_right") is False for row in self.rows))

    def save(self) -> None:
        """Write the file."""
        if self.path is not None:
            values = {"rows": self.rows, "notes": self.notes, "skipped": self.skipped, "at": self._at}
            # Whoever is ended in the middle leaves the file of before.
            unfinished = self.path.with_name(f"{self.path.name}.new")
            unfinished.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            unfinished.replace(self.path)

    def _add(self, row: dict[str, Any]) -> None:
        words = {"is_right": ("WRONG", "right"), "is_reached": ("missed", "reached")}
        verdict = next((both[row[key]] for key, both in words.items() if key in row), "")
        asked = f" (asked {row['asked']})" if row["asked"] else ""
        print(f"{row['what']}: {row['found']}{asked} {verdict}".rstrip(), flush=True)
        self.rows.append(row)
        self.save()


def gpu_is_lost() -> bool:
    """Whether CUDA has given up this process: after an illegal address or a failed assertion every call fails."""
    if "cupy" not in sys.modules:
        return False
    try:
        sys.modules["cupy"].cuda.runtime.deviceSynchronize()
    except RuntimeError:
        return True
    return False

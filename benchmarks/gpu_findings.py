"""What one section of scripts/gpu-check or scripts/gpu-bench finds, in a file that grows with every finding."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import REPOSITORY

__all__ = ["Findings"]

if str(REPOSITORY) not in sys.path:  # the checkout's own package, and the helpers of its tests
    sys.path.insert(0, str(REPOSITORY))


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
            values = {"rows": self.rows, "notes": self.notes, "skipped": self.skipped}
            self.path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    def _add(self, row: dict[str, Any]) -> None:
        words = {"is_right": ("WRONG", "right"), "is_reached": ("missed", "reached")}
        verdict = next((both[row[key]] for key, both in words.items() if key in row), "")
        asked = f" (asked {row['asked']})" if row["asked"] else ""
        print(f"{row['what']}: {row['found']}{asked} {verdict}".rstrip(), flush=True)
        self.rows.append(row)
        self.save()

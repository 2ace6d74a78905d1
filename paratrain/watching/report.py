"""The last words about a job."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path

__all__ = ["newest_snapshot", "write_report"]


def write_report(text: str, snapshot_prefix: str = "") -> None:
    """Write why the job ends on stderr, in one piece, and which snapshot it may go on from."""
    lines = [f"paratrain: {text}"]
    if snapshot_prefix:
        newest = newest_snapshot(snapshot_prefix)
        if newest is None:
            lines.append(f"  There is no snapshot of '{snapshot_prefix}' yet.")
        else:
            lines.append(f"  The newest snapshot is {newest}; --resume auto goes on from it.")
    with contextlib.suppress(OSError):  # nobody reads any more
        os.write(2, ("\n".join(lines) + "\n").encode(errors="replace"))


def newest_snapshot(prefix: str) -> str | None:
    """The name, without its ending, of the newest snapshot that was finished: its trainstate is written last."""
    found: dict[int, str] = {}
    start = Path(f"{prefix}_iter_")
    for path in start.parent.glob(f"{glob.escape(start.name)}*.trainstate"):
        number = path.stem.removeprefix(start.name)
        if number.isdigit() and path.stat().st_size > 0:
            found[int(number)] = str(path.with_suffix(""))
    return found[max(found)] if found else None

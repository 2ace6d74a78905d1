"""A section of scripts/gpu-check as processes: one, and another one behind each part that crashes, hangs or loses the GPU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_findings import FROM_VARIABLE, LOST
from gpu_process import end, last_words, show_stacks, why_ended
from machine import REPOSITORY

__all__ = ["Running", "read", "run_processes"]

_LEAST_S = 5.0
_TRACEBACK = 8000
"""Characters that are kept of what a process has said that crashed or hung, the last ones."""
_QUIET = 88
"""Stands for the exit code of a process that was ended since it found nothing new."""


class Running:
    """The processes that run at the moment, for whoever has to end them all."""

    def __init__(self) -> None:
        self.processes: set[subprocess.Popen[Any]] = set()
        self.is_over = False
        """Whether they have been ended, so that none begins any more."""

    def end_all(self) -> None:
        """End them, all at once."""
        self.is_over = True
        for process in list(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in list(self.processes):
            end(process)


def run_processes(
    command: Sequence[str],
    environment: dict[str, str],
    log: Path,
    found_file: Path,
    *,
    limit_s: float,
    quiet_s: float,
    running: Running,
) -> tuple[int, str]:
    """Run a section; return the exit code of its last process and what else there is to say of its end.

    Where one ends in the middle of a part (`Findings.each`) that is noted as wrong, and the next begins behind it. All of them
    together end within ``limit_s``; one that finds nothing new for ``quiet_s`` in a part hangs there.
    """
    stop, first, late = time.monotonic() + limit_s, 0, (1, f"did not end within {limit_s:.0f} s")
    log.write_text("", encoding="utf-8")
    while not running.is_over:
        before = log.stat().st_size
        own = {**environment, FROM_VARIABLE: str(first)}
        code, reason = _run(command, own, log, found_file, stop, quiet_s, running)
        found = read(found_file)
        if code is None:
            return late
        if code in (0, 1) or found["at"] is None or running.is_over:
            return code, reason
        number, part = found["at"]
        if code != LOST:
            said = log.read_bytes()[before:].decode("utf-8", "replace")
            text = f"{reason}: {last_words(said)}"
            row = {"kind": "check", "what": part, "asked": "", "found": text, "is_right": False}
            found["rows"].append({**row, "traceback": said[-_TRACEBACK:]})
            found_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if stop - time.monotonic() < _LEAST_S:
            return late
        first = number + 1
    return 1, "interrupted"


def _run(
    command: Sequence[str],
    environment: dict[str, str],
    log: Path,
    found_file: Path,
    stop: float,
    quiet_s: float,
    running: Running,
) -> tuple[int | None, str]:
    """One process: its exit code, None where the time is over, and why it ended."""
    with log.open("a", encoding="utf-8") as written:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY / "benchmarks",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running.processes.add(process)
    seen, since = 0, time.monotonic()
    try:
        while True:
            try:
                code = process.wait(max(0.0, min(0.3, stop - time.monotonic())))
                return code, why_ended(code)
            except subprocess.TimeoutExpired:
                now, changed = time.monotonic(), found_file.stat().st_mtime_ns if found_file.exists() else 0
            if now >= stop:
                show_stacks(process)
                return None, ""
            if changed != seen:
                seen, since = changed, now
            elif now - since > quiet_s and read(found_file)["at"] is not None:
                show_stacks(process)
                return _QUIET, f"it hangs: nothing new for {quiet_s:g} s"
    finally:
        end(process)
        running.processes.discard(process)


def read(path: Path) -> dict[str, Any]:
    """What a section has found so far."""
    nothing: dict[str, Any] = {"rows": [], "notes": {}, "skipped": "", "at": None}
    try:
        return {**nothing, **json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        return nothing

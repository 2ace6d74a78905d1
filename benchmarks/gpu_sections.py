"""Running the sections of scripts/gpu-check and scripts/gpu-bench: a process and a time limit for each."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpu_process import last_words, section_environment, shortened
from gpu_restarts import Running, read, run_processes

__all__ = ["Outcome", "Section", "run_sections", "select"]

_LEAST_S = 5.0
_QUIET_S = 30.0
"""At least so long may a part of a section take, times ``patience``, without finding anything."""
_SHARE_OF_FREE = 0.8
"""How much of the memory that is free at the start all processes of a moment may take together."""


@dataclass(frozen=True)
class Section:
    """A part of a check, run as ``python COMMAND --out FILE`` from the folder benchmarks."""

    name: str
    command: tuple[str, ...]
    limit_s: float
    is_alone: bool = False
    """Nothing else may run on the GPU: it is timed, or prepares what others need."""
    needs: tuple[str, ...] = ()
    """Modules without which it is skipped, and programs: ``$mpirun``."""
    is_vital: bool = False
    """Where nothing of it is right, all sections after it are skipped."""
    quiet_s: float = 0.0
    """How long a part of it may take without finding anything; 0: a third of the limit, or half a minute if that is more."""


@dataclass
class Outcome:
    """How a section ended: OK, FAILED or skipped, and what it found."""

    name: str
    status: str
    seconds: float = 0.0
    reason: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """One line: name, status, seconds, and what was wrong or how many goals were missed."""
        wrong = [row for row in self.rows if row.get("is_right") is False]
        missed = sum(row.get("is_reached") is False for row in self.rows)
        rest = self.reason or (f"{wrong[0]['what']}: {wrong[0]['found']}" if wrong else "")
        if len(wrong) > 1:
            rest += f" (and {len(wrong) - 1} more)"
        if missed:
            rest += f"{'; ' if rest else ''}goals missed: {missed}"
        return f"{self.name:<22} {self.status:<8}{self.seconds:6.1f} s  {' '.join(rest.split())[:400]}".rstrip()

    @property
    def values(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def select(sections: Sequence[Section], only: str | None, skip: str | None) -> list[Section]:
    """The sections that two lists of names, divided by commas, leave; ``speed`` stands for all that begin with ``speed-``.

    Raises ValueError for a name that is none.
    """

    def matches(section: Section, name: str) -> bool:
        return section.name == name or section.name.startswith(f"{name}-")

    wanted, unwanted = ([name.strip() for name in (given or "").split(",") if name.strip()] for given in (only, skip))
    for name in (*wanted, *unwanted):
        if not any(matches(section, name) for section in sections):
            raise ValueError(f"no section {name!r}; there are {', '.join(section.name for section in sections)}")
    return [
        section
        for section in sections
        if (not wanted or any(matches(section, name) for name in wanted))
        and not any(matches(section, name) for name in unwanted)
    ]


def run_sections(
    sections: Sequence[Section],
    folder: Path,
    *,
    free_bytes: int,
    total_s: float,
    jobs: int,
    report: Callable[[Outcome], None],
    patience: float = 1.0,
) -> list[Outcome]:
    """Run all sections and return how they ended, in their order. ``folder`` gets ``NAME.log`` and ``NAME.json`` of each.

    ``free_bytes`` is the GPU's memory that nobody has taken: sections keep within a part of it.
    Neighbours that need not be alone run ``jobs`` at a time. What has not begun after ``total_s`` is skipped, and what still
    runs then is ended; so is what runs longer than its limit times ``patience``. ``report`` is called with each outcome as soon
    as it is known, by one thread at a time. A section that ends in the middle of one of its parts goes on behind it.
    """
    stop, lock = time.monotonic() + total_s, threading.Lock()
    budget, running = int(_SHARE_OF_FREE * free_bytes), Running()

    dead: list[str] = []

    def run(section: Section) -> Outcome:
        share = budget if section.is_alone else budget // jobs
        if dead:
            outcome = Outcome(section.name, "skipped", 0.0, f"{dead[0]} has failed")
        else:
            outcome = _run(section, folder, stop, section_environment(share), running, patience)
        with lock:
            is_right = any(row.get("is_right") for row in outcome.rows)
            if section.is_vital and outcome.status == "FAILED" and not is_right:
                dead.append(section.name)
            report(outcome)
        return outcome

    outcomes: list[Outcome] = []
    for group in _groups(sections):
        with ThreadPoolExecutor(jobs) as pool:
            try:
                outcomes += pool.map(run, group)
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                running.end_all()
                raise
    return outcomes


def _groups(sections: Sequence[Section]) -> Iterator[list[Section]]:
    """Each section that must be alone, and between them those that may run side by side."""
    together: list[Section] = []
    for section in sections:
        if section.is_alone:
            yield together
            together = []
            yield [section]
        else:
            together.append(section)
    yield together


def _missing(section: Section) -> str:
    for need in section.needs:
        if need == "$mpirun":
            from paratrain.errors import ParatrainError
            from paratrain.launch.self_launch import find_mpirun

            try:
                find_mpirun(os.environ)
            except ParatrainError as error:
                return str(error)
        elif need.startswith("$"):
            if shutil.which(need[1:]) is None:
                return f"no {need[1:]} on the path"
        elif importlib.util.find_spec(need) is None:
            return f"{need} is not installed"
    return ""


def _run(
    section: Section,
    folder: Path,
    stop: float,
    environment: dict[str, str],
    running: Running,
    patience: float,
) -> Outcome:
    missing, left_s = _missing(section), stop - time.monotonic()
    if missing or left_s < _LEAST_S:
        return Outcome(section.name, "skipped", 0.0, missing or "the time is over (--minutes)")
    limit_s = min(patience * section.limit_s, left_s)
    found_file, log = folder / f"{section.name}.json", folder / f"{section.name}.log"
    found_file.unlink(missing_ok=True)
    command = [sys.executable, *section.command, "--out", str(found_file)]
    begin = time.monotonic()
    code, reason = run_processes(
        command,
        {**environment, "PARATRAIN_SECTION_S": f"{limit_s:.0f}"},
        log,
        found_file,
        limit_s=limit_s,
        quiet_s=section.quiet_s or patience * max(_QUIET_S, section.limit_s / 3),
        running=running,
    )
    found = read(found_file)
    if found["skipped"]:
        return Outcome(section.name, "skipped", time.monotonic() - begin, found["skipped"])
    is_wrong = any(row.get("is_right") is False for row in found["rows"])
    status = "FAILED" if code or is_wrong or not found["rows"] else "OK"
    text = log.read_text(encoding="utf-8", errors="replace")
    if status == "FAILED" and not is_wrong:
        reason = f"{reason or 'it found nothing'}; see {log.name}: {last_words(text)}"
    elif code in (0, 1) and is_wrong and not reason.startswith("did not"):
        reason = ""  # the row says more
    found["notes"]["log"] = shortened(text)
    return Outcome(section.name, status, time.monotonic() - begin, reason, found["rows"], found["notes"])

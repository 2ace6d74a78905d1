"""Processes of scripts/gpu-check and scripts/gpu-bench: their environment, end and last words; and finding the GPU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import REPOSITORY

__all__ = ["Gpu", "end", "find_gpu", "last_words", "section_environment", "shortened", "show_stacks", "why_ended"]

_KILL_S = 5.0
_FIND_S = 180.0
"""For the first process that sees the GPU: programs and libraries may come from a slow disk then."""
_LOG_PART = 20_000
"""Characters that are kept of the beginning and of the end of what a section that failed has said."""
_LOOK = """
import json
from paratrain import gpu
problem = gpu.problem()
if problem is not None:
    print(json.dumps({"problem": problem}))
else:
    runtime = gpu.library().cuda.runtime
    name = runtime.getDeviceProperties(gpu.library().cuda.Device().id)["name"]
    print(json.dumps({"name": name.decode() if isinstance(name, bytes) else name, "free_bytes": runtime.memGetInfo()[0]}))
"""


@dataclass(frozen=True)
class Gpu:
    """The GPU that computes, or why there is none."""

    name: str = ""
    free_bytes: int = 0
    problem: str = ""
    is_failure: bool = False
    """Whether looking for it failed, which need not mean that there is none."""


def find_gpu() -> Gpu:
    """Look for it in a process of its own, which leaves nothing on it."""
    command = [sys.executable, "-c", _LOOK]
    try:
        done = subprocess.run(
            command, env=section_environment(), capture_output=True, text=True, timeout=_FIND_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        return Gpu(problem=f"looking for it did not end within {_FIND_S:.0f} s\n{said}".strip(), is_failure=True)
    if done.returncode:
        problem = done.stderr.strip() or f"looking for it: {why_ended(done.returncode)}"
        return Gpu(problem=problem[-_LOG_PART:], is_failure=True)
    return Gpu(**json.loads(done.stdout.splitlines()[-1]))


def why_ended(code: int) -> str:
    """What an exit code says; nothing of 0."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exit code {code}" if code else ""


def show_stacks(process: subprocess.Popen[Any]) -> None:
    """Let Python's processes under this one, itself included, say where they are (faulthandler does at SIGABRT), which ends them.

    Ranks too, which mpirun has given sessions of their own.
    """
    for number in _family(process.pid):
        with contextlib.suppress(OSError):
            if b"python" in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0]:
                os.kill(number, signal.SIGABRT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_S)


def _family(root: int) -> list[int]:
    """A process and those that descend from it, the youngest generation first."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(place.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.parent.name))
    found = [root]
    for number in found:  # it grows meanwhile
        found += children.get(number, [])
    return found[::-1]


def end(process: subprocess.Popen[Any]) -> None:
    """End what is left of the section: its process group, first with the chance to clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if process.poll() is not None:
            time.sleep(0.1)
            continue
        try:
            process.wait(_KILL_S)
        except subprocess.TimeoutExpired:  # a driver that hangs lets nobody go: it is left behind
            continue
    process.poll()


def shortened(text: str) -> str:
    """Its beginning and its end, if it is long."""
    if len(text) <= 2 * _LOG_PART:
        return text
    return f"{text[:_LOG_PART]}\n... {len(text) - 2 * _LOG_PART} characters left out ...\n{text[-_LOG_PART:]}"


def last_words(text: str) -> str:
    """The last line that was said, and the innermost place that Python named when it crashed, if it did."""
    said, _, stacks = text.partition("Fatal Python error: ")
    lines = said.strip().splitlines() or ["it said nothing"]
    places = [line.strip() for line in stacks.splitlines() if line.startswith("  File ")]
    return "; ".join([lines[-1][:300], *places[:1]])


def section_environment(memory_bytes: int | None = None) -> dict[str, str]:
    """That of all processes; ``memory_bytes`` of the GPU is what they may take."""
    given = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = os.pathsep.join([*given, str(REPOSITORY)])
    found = {"OMP_NUM_THREADS": "4", **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    found["PYTHONFAULTHANDLER"] = "1"  # a crash shows where Python was
    if memory_bytes is not None:
        found["CUPY_GPU_MEMORY_LIMIT"] = str(memory_bytes)  # CuPy's pools keep to it
    return found

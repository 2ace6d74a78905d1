"""What the kernel tells of a process: how it ended, whether it is stopped, whether memory ran out."""

from __future__ import annotations

import signal
from pathlib import Path

__all__ = ["count_memory_kills", "describe_end", "exit_status", "is_stopped", "parent_of", "program_of", "state_of"]

_LAUNCHERS_SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def exit_status(process: int, folder: Path = Path("/proc")) -> int | None:
    """The status, as wait(2) gives it, of a process that is ending or has ended and not been waited for; None if it is gone."""
    fields = _stat(process, folder)
    return int(fields[-1]) if fields else None


def is_stopped(process: int, folder: Path = Path("/proc")) -> bool:
    """Whether a signal has stopped the process; one that a debugger holds is not meant."""
    return state_of(process, folder) == "T"


def state_of(process: int, folder: Path = Path("/proc")) -> str:
    """Its state, in the kernel's letters: R, S, D, T for stopped, Z for ended; "" if it is gone."""
    fields = _stat(process, folder)
    return fields[0] if fields else ""


def parent_of(process: int, folder: Path = Path("/proc")) -> int | None:
    """The process that started it; None if it is gone."""
    fields = _stat(process, folder)
    return int(fields[1]) if fields else None


def program_of(process: int, folder: Path = Path("/proc")) -> str:
    """The name of the program that it runs, of 15 characters at most."""
    try:
        return (folder / str(process) / "comm").read_text().strip()
    except OSError:
        return ""


def describe_end(status: int | None, *, memory_ran_out: bool = False) -> tuple[str, bool]:
    """Say how a process with this status ended, and whether it may have been by a signal with which launchers end ranks."""
    if status is None:
        return "the process has vanished", True
    number, code = status & 0x7F, (status >> 8) & 0xFF
    if number == 0:
        return f"the process has ended with exit code {code}, before its work was done", False
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    text = f"killed by {name}"
    if number == signal.SIGKILL and memory_ran_out:
        text += ", as the kernel does when memory runs out, and it has just done so on this host"
    return text, number in _LAUNCHERS_SIGNALS


def count_memory_kills(path: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed since it was started because memory ran out; 0 where it does not say."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _stat(process: int, folder: Path) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if the process is gone."""
    try:
        return (folder / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []

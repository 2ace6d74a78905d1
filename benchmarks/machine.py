"""What to write beside every measured figure: the machine, the commit, the versions."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def describe(*packages: str) -> str:
    """Return lines that name the processor, its cores in use, Python, the packages and the commit of this checkout.

    A copy without git's data takes the commit from the variable PARATRAIN_COMMIT.
    """
    versions = ", ".join(f"{name} {_version(name)}" for name in ("numpy", *packages))
    return "\n".join(
        [
            f"- {datetime.date.today().isoformat()}, commit {_commit()}",
            f"- {_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}",
            f"- Python {platform.python_version()}, {versions}",
        ]
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _commit() -> str:
    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
        except OSError:  # no git here; a copy of a checkout may have no history either
            return ""

    given = os.environ.get("PARATRAIN_COMMIT", "")
    if given:
        return given
    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return (git("rev-parse", "--short", "HEAD") or "unknown") + changed

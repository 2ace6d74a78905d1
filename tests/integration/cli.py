"""Running the `paratrain` command as a user does."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from paratrain import log
from paratrain.launch.cli import main
from tests.paths import REPOSITORY

COMMAND = [sys.executable, "-m", "paratrain"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
SMALL_NET = (REPOSITORY / "tests/golden/solvers/sgd.net.prototxt").read_text()


def write_solver(folder: Path, settings: str = "", *, net: str = SMALL_NET, name: str = "small") -> str:
    """Write a net and its solver, which trains 4 iterations unless ``settings`` says otherwise; return the solver's name."""
    (folder / f"{name}.net.prototxt").write_text(net)
    given = {line.split(":")[0].strip() for line in settings.splitlines() if ":" in line}
    defaults = {
        "net": f'"{name}.net.prototxt"',
        "base_lr": "0.05",
        "lr_policy": '"fixed"',
        "max_iter": "4",
        "display": "2",
        "snapshot_prefix": f'"{name}"',
        "solver_mode": "CPU",
        "random_seed": "3",
    }
    kept = "".join(f"{field}: {value}\n" for field, value in defaults.items() if field not in given)
    (folder / f"{name}.solver.prototxt").write_text(kept + settings)
    return f"{name}.solver.prototxt"


def paratrain(folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run ``paratrain`` in ``folder``, under ``launcher`` if one is given."""
    command = [*launcher, *COMMAND, *arguments]
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=100, check=False
    )


def paratrain_here(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As :func:`paratrain`, in this process: quick, and good enough for what ends before training starts."""
    logger = logging.getLogger("paratrain")
    before, started_in = (logger.level, logger.propagate), Path.cwd()
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        os.chdir(folder)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = main(arguments)
    finally:
        os.chdir(started_in)
        if log._handler is not None:
            logger.removeHandler(log._handler)
            log._handler = None
        logger.level, logger.propagate = before
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def messages(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of the log without glog's prefix, and whatever else stands on stderr."""
    return [line.split("] ", 1)[-1] for line in done.stderr.splitlines()]


def figures(path: Path) -> list[dict[str, Any]]:
    """What ``--metrics`` has written of displayed iterations and tests, without what it says of the run itself."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "iteration" in line]


def error(done: subprocess.CompletedProcess[str]) -> str:
    """The one message of a run that failed as it should: exit code 1, no traceback."""
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    found = [line for line in done.stderr.splitlines() if line.startswith("paratrain: ")]
    assert len(found) == 1, done.stderr
    return found[0].removeprefix("paratrain: ")

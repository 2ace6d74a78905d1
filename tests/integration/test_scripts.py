"""What scripts/_environment refuses to do. That it works shows each time the other scripts run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def prepare(repository: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    if not (repository / "scripts/_environment").is_file():
        pytest.skip("no checkout around these tests")
    command = ["bash", "-euc", ". scripts/_environment; prepare_environment test; echo prepared"]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True, check=False)


def test_a_folder_of_somebody_else_is_left_alone(repository: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("not ours")
    done = prepare(repository, PARATRAIN_VENV=str(tmp_path), PYTHON=sys.executable)
    assert done.returncode == 1
    assert "was not made by these scripts" in done.stderr
    assert list(tmp_path.iterdir()) == [precious]
    assert precious.read_text() == "not ours"


def test_a_python_that_is_not_there(repository: Path, tmp_path: Path) -> None:
    done = prepare(repository, PARATRAIN_VENV=str(tmp_path / "venv"), PYTHON="no-such-python")
    assert done.returncode == 1
    assert "'no-such-python' is not there; install Python 3.10 to 3.14" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_cannot_make_environments(repository: Path, tmp_path: Path) -> None:
    """As on Debian without python3-venv: a message, no stamp, and the next run starts anew."""
    crippled = tmp_path / "python"
    crippled.write_text(
        f'#!/bin/sh\ncase "$*" in *_base_executable*) echo "$0"; exit;; "-m venv"*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    crippled.chmod(0o755)
    done = prepare(repository, PARATRAIN_VENV=str(tmp_path / "venv"), PYTHON=str(crippled))
    assert done.returncode == 1
    assert "it needs the package python3-venv" in done.stderr
    assert list((tmp_path / "venv").rglob("made-of")) == []

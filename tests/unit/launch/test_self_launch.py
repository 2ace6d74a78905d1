from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from paratrain.errors import CommunicationError
from paratrain.launch.self_launch import find_mpirun, mpirun_arguments, mpirun_family

COMMAND = ["python", "-m", "paratrain", "train", "solver.prototxt"]


def make_program(path: Path, says: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_mpirun_beside_this_python_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = make_program(tmp_path / "system" / "mpirun")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    environ = {"PATH": str(on_path.parent)}
    assert find_mpirun(environ) == on_path
    beside = make_program(tmp_path / "venv" / "bin" / "mpiexec")
    assert find_mpirun(environ) == beside
    beside = make_program(tmp_path / "venv" / "bin" / "mpirun")
    assert find_mpirun(environ) == beside


def test_the_library_that_is_asked_for_brings_its_mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(make_program(tmp_path / "venv" / "bin" / "mpirun")))
    own = make_program(tmp_path / "cluster" / "bin" / "mpirun")
    assert find_mpirun({"MPI4PY_LIBMPI": str(tmp_path / "cluster" / "lib" / "libmpi.so")}) == own
    # a bare name is looked up by the loader and says nothing of a folder
    assert find_mpirun({"MPI4PY_LIBMPI": "libmpi.so.12"}) == tmp_path / "venv" / "bin" / "mpirun"


def test_no_mpirun_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(CommunicationError, match=r"none on PATH.*pip install 'paratrain\[mpi\]'"):
        find_mpirun({"PATH": str(tmp_path)})


def test_mpich_needs_no_options() -> None:
    expected = ["/v/bin/mpirun", "-n", "4", *COMMAND]
    assert mpirun_arguments(Path("/v/bin/mpirun"), "mpich", 4, COMMAND, is_root=True, core_count=2) == expected


@pytest.mark.parametrize(
    ("is_root", "rank_count", "options"),
    [
        (False, 2, []),
        (True, 2, ["--allow-run-as-root"]),
        (False, 3, ["--oversubscribe"]),
        (True, 3, ["--allow-run-as-root", "--oversubscribe"]),
    ],
)
def test_open_mpi_is_told_of_root_and_of_few_cores(is_root: bool, rank_count: int, options: list[str]) -> None:
    expected = ["/usr/bin/mpirun", "-n", str(rank_count), "--bind-to", "none", *options, *COMMAND]
    assert mpirun_arguments(Path("/usr/bin/mpirun"), "openmpi", rank_count, COMMAND, is_root, 2) == expected


@pytest.mark.parametrize(
    ("says", "family"),
    [
        ("mpirun (Open MPI) 5.0.11", "openmpi"),
        ("HYDRA build details:", "mpich"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.11", "mpich"),
    ],
)
def test_families(tmp_path: Path, says: str, family: str) -> None:
    assert mpirun_family(make_program(tmp_path / "mpirun", says)) == family


def test_an_mpirun_of_no_known_family(tmp_path: Path) -> None:
    with pytest.raises(CommunicationError, match=r"says 'wrapper 1\.0': expected Open MPI, MPICH or Intel MPI"):
        mpirun_family(make_program(tmp_path / "mpirun", "wrapper 1.0"))
    with pytest.raises(CommunicationError, match="could not be run"):
        mpirun_family(tmp_path / "missing")


def test_the_mpirun_of_this_machine_is_known(mpirun: str) -> None:
    assert os.access(mpirun, os.X_OK)
    assert mpirun_family(Path(mpirun)) in ("mpich", "openmpi")

"""A look at /dev/shm before MPI starts."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from paratrain.comm.environment import LauncherEnvironment
from paratrain.comm.small_shared_memory import avoid_small_shared_memory


def launcher(local_size: int, family: str = "mpich", local_rank: int = 0) -> LauncherEnvironment:
    return LauncherEnvironment("mpirun", family, local_size, local_rank, local_rank, local_size, "X=1")


@pytest.fixture(autouse=True)
def sixty_four_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=16384, f_frsize=4096))


def test_too_many_ranks_for_it_use_the_network_and_one_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for rank in range(2):
        environ: dict[str, str] = {}
        avoid_small_shared_memory(launcher(13, local_rank=rank), environ, tmp_path)
        assert environ == {"UCX_TLS": "tcp,self"}
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "has 67 MB free, and MPI would take 82 MB for 13 ranks" in record.getMessage()


@pytest.mark.parametrize(
    ("found", "before"),
    [(launcher(4), {}), (launcher(13, "openmpi"), {}), (launcher(13), {"UCX_TLS": "rc"}), (None, {})],
    ids=["there is room", "another MPI", "chosen by the user", "no launcher"],
)
def test_nothing_else_is_touched(found: LauncherEnvironment | None, before: dict[str, str], tmp_path: Path) -> None:
    environ = dict(before)
    avoid_small_shared_memory(found, environ, tmp_path)
    assert environ == before

"""create_communicator in plain processes, with and without what it may need."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from paratrain.comm.environment import mpi_family

ROOT = Path(__file__).parents[3]

BLOCK_MPI4PY = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mpi4py":
            raise ModuleNotFoundError("No module named 'mpi4py'")
sys.meta_path.insert(0, Blocker())
"""

CONNECT = """
from paratrain.launch.abort import connect
communicator = connect()
print(type(communicator).__name__, communicator.rank, communicator.size)
communicator.close()
"""


def python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI", "MPI", "SLURM_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def reported(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error: no traceback, exit code 1, nothing else said."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("paratrain: ")
    return done.stderr


@pytest.mark.parametrize(
    "environ", [{}, {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, {"PMI_SIZE": "1", "PMI_RANK": "0"}]
)
def test_one_rank_needs_no_mpi4py(environ: dict[str, str]) -> None:
    done = python(BLOCK_MPI4PY + CONNECT, **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "LocalCommunicator 0 1\n", "")


def test_the_blocker_of_these_tests_blocks() -> None:
    assert "No module named 'mpi4py'" in python(BLOCK_MPI4PY + "import mpi4py.MPI").stderr


def test_started_by_mpirun_without_mpi4py() -> None:
    message = reported(python(BLOCK_MPI4PY + CONNECT, OMPI_COMM_WORLD_SIZE="4", OMPI_COMM_WORLD_RANK="0"))
    assert "a process started by Open MPI's mpirun needs mpi4py, which is not installed" in message
    assert "pip install 'paratrain[mpi]'" in message


def test_started_by_mpirun_without_an_mpi_library() -> None:
    done = python(CONNECT, OMPI_COMM_WORLD_SIZE="4", OMPI_COMM_WORLD_RANK="0", MPI4PY_LIBMPI="/nowhere/libmpi.so")
    message = reported(done)
    assert "/nowhere/libmpi.so" in message
    assert "pip install 'paratrain[mpi]'" in message
    assert "MPI of your cluster" in message


def test_a_library_missing_on_one_node_is_told_by_that_node() -> None:
    """Rank 2 of 4 is the first of the second node. It ends by a signal: the others may be waiting inside MPI_Init."""
    environ = {
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "MPI4PY_LIBMPI": "/nowhere/libmpi.so",
    }
    done = python(CONNECT, **environ)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(f"(rank 2 on {socket.gethostname()})\n")


@pytest.fixture(scope="module")
def family() -> str:
    """The family of the MPI library on this machine."""
    done = python(
        "import mpi4py; mpi4py.rc.initialize = False\nfrom mpi4py import MPI; print(MPI.Get_library_version())"
    )
    found = mpi_family(done.stdout)
    if found is None:
        pytest.skip(f"no MPI library that mpi4py could load: {(done.stdout + done.stderr)[-200:]}")
    return found


def test_started_by_the_mpirun_of_another_mpi(family: str) -> None:
    """Told before MPI starts: MPICH under Open MPI's mpirun would end the process from inside MPI_Init."""
    foreign = {
        "mpich": [
            {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": str(rank), "PMIX_RANK": "0"} for rank in (0, 1)
        ],
        "openmpi": [{"PMI_SIZE": "4", "PMI_RANK": str(rank), "MPI_LOCALNRANKS": "4"} for rank in (0, 1)],
    }[family]
    message = reported(python(CONNECT, **foreign[0]))
    names = ["Open MPI's mpirun started 4 processes", "is MPICH "]
    if family == "openmpi":
        names = ["MPICH's mpirun started 4 processes", "is Open MPI v"]
    assert all(name in message for name in names), message
    assert "MPI4PY_LIBMPI" in message

    silent = python(CONNECT, **foreign[1])  # rank 0 has spoken for all
    assert (silent.returncode, silent.stdout, silent.stderr) == (1, "", "")


def test_every_process_believes_it_is_alone(family: str) -> None:
    """A launcher that the library did not hear of: MPI's world has one rank where four processes were started."""
    message = reported(python(CONNECT, SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="0"))
    assert "srun started 4 processes (SLURM_STEP_NUM_TASKS=4)" in message
    assert "every process would believe it is alone, rank 0 of 1" in message
    assert "srun --mpi=pmix" in message


def test_a_script_that_started_mpi_itself_for_one_rank(family: str) -> None:
    done = python("from mpi4py import MPI\n" + CONNECT)
    assert (done.returncode, done.stdout) == (0, "LocalCommunicator 0 1\n"), done.stderr


def test_importing_the_room_does_not_import_mpi4py() -> None:
    code = "import sys, paratrain.comm, paratrain.launch.abort, paratrain.launch.self_launch; print('mpi4py' in sys.modules)"
    assert python(code).stdout == "False\n"

from __future__ import annotations

from collections.abc import Sequence

import pytest

from paratrain.comm.environment import LauncherEnvironment, first_line, launcher_environment, mpi_family, number_nodes
from paratrain.comm.mpi import foreign_launcher_message

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
}
MPICH = {"PMI_SIZE": "4", "PMI_RANK": "2", "PMI_FD": "9", "MPI_LOCALRANKID": "2", "MPI_LOCALNRANKS": "4"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


def of(environ: dict[str, str]) -> LauncherEnvironment:
    found = launcher_environment({"HOME": "/", **environ})
    assert found is not None
    return found


def test_open_mpi() -> None:
    assert of(OPEN_MPI) == LauncherEnvironment("Open MPI's mpirun", "openmpi", 4, 3, 1, 2, "OMPI_COMM_WORLD_SIZE=4")


def test_mpich_and_intel_mpi() -> None:
    assert of(MPICH) == LauncherEnvironment("MPICH's mpirun", "mpich", 4, 2, 2, 4, "PMI_SIZE=4")
    assert of({**MPICH, "I_MPI_HYDRA_UUID": "1"}).launcher == "Intel MPI's mpirun"


def test_slurm() -> None:
    found = of(SRUN)
    assert (found.launcher, found.family, found.size, found.rank, found.local_rank) == ("srun", None, 8, 5, 1)
    assert found.local_size is None
    assert of({**SRUN, "SLURM_STEP_NUM_NODES": "1"}).local_size == 8
    # srun --mpi=pmi2 and --mpi=pmix add these: it is still srun, under which any library may run
    assert of({**SRUN, "PMI_SIZE": "8", "PMI_RANK": "5"}) == found
    assert of({**SRUN, "PMIX_RANK": "5"}) == found


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # the body of an sbatch script
        {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # salloc's shell
        {"OMPI_COMM_WORLD_SIZE": "", "PMI_SIZE": "four"},
    ],
)
def test_plain_processes(environ: dict[str, str]) -> None:
    assert launcher_environment(environ) is None


def test_the_innermost_launcher_wins() -> None:
    assert of({**SRUN, **OPEN_MPI}).launcher == "Open MPI's mpirun"
    assert of({**SRUN, **MPICH}).launcher == "MPICH's mpirun"


def test_launchers_known_only_by_their_interface() -> None:
    assert of({"PMI_SIZE": "4", "PMI_RANK": "2"}).family is None
    found = of({"PMIX_RANK": "2"})
    assert (found.size, found.rank) == (None, 2)


def test_libraries() -> None:
    open_mpi = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11\0"
    mpich = "MPICH Version:      5.0.2\nMPICH Release date: today\n"
    assert (mpi_family(open_mpi), first_line(open_mpi)) == ("openmpi", "Open MPI v5.0.11")
    assert (mpi_family(mpich), first_line(mpich)) == ("mpich", "MPICH 5.0.2")
    assert mpi_family("Intel(R) MPI Library 2021.11 for Linux* OS") == "mpich"
    assert mpi_family("Somebody's MPI 1.0") is None


def test_the_message_for_a_foreign_launcher_names_both_and_how_to_mend_it() -> None:
    message = foreign_launcher_message(of(OPEN_MPI), "MPICH Version:      5.0.2\n")
    for part in (
        "Open MPI's mpirun started 4 processes (OMPI_COMM_WORLD_SIZE=4)",
        "MPICH 5.0.2",
        "believe it is alone",
        "mpirun of that library",
        "MPI4PY_LIBMPI",
        "only one of the wheels",
    ):
        assert part in message
    assert "\n" not in message
    assert "srun --mpi=pmix" in foreign_launcher_message(of(SRUN), "Open MPI v5.0.11")


@pytest.mark.parametrize(
    ("boot_ids", "groups", "nodes"),
    [
        ("aaaa", [0, 0, 0, 0], [0, 0, 0, 0]),
        ("abab", [0, 0, 0, 0], [0, 1, 0, 1]),  # MPI believes a hostname that two machines have
        ("aaaa", [0, 0, 2, 2], [0, 0, 1, 1]),  # containers of one machine that share no memory
        ("abab", [0, 1, 0, 1], [0, 1, 0, 1]),
        ("ba", [5, 3], [0, 1]),
        (["", "", ""], [0, 1, 0], [0, 1, 0]),
    ],
)
def test_a_node_is_what_mpi_and_the_kernel_both_call_one(
    boot_ids: Sequence[str], groups: list[int], nodes: list[int]
) -> None:
    assert number_nodes(groups, boot_ids) == nodes

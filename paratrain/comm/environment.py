"""What the environment variables tell about the launcher that started this process. No MPI library is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Slurm numbers the steps that it makes for itself (batch script, interactive shell, extern) from here on.
_FIRST_RESERVED_SLURM_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class LauncherEnvironment:
    """A launcher's own account of the processes it started.

    `launcher` is its name in words. `family` is "openmpi" or "mpich" where only that family's libraries understand the
    launcher, else None. `size` and the local numbers are None where the launcher does not say them. `evidence` is the
    variable that told, as NAME=value.
    """

    launcher: str
    family: str | None
    size: int | None
    rank: int
    local_rank: int | None
    local_size: int | None
    evidence: str


def launcher_environment(environ: Mapping[str, str]) -> LauncherEnvironment | None:
    """The launcher that started this process according to `environ` (os.environ), or None for a plain process.

    The innermost launcher wins: an mpirun inside a Slurm allocation is the mpirun, not Slurm.
    """
    for read in (_open_mpi, _hydra, _slurm, _pmi, _pmix):
        found = read(environ)
        if found is not None:
            return found
    return None


def _open_mpi(environ: Mapping[str, str]) -> LauncherEnvironment | None:
    size, rank = _number(environ, "OMPI_COMM_WORLD_SIZE"), _number(environ, "OMPI_COMM_WORLD_RANK")
    if size is None:
        return None
    local_rank = _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK")
    local_size = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE")
    evidence = f"OMPI_COMM_WORLD_SIZE={size}"
    return LauncherEnvironment("Open MPI's mpirun", "openmpi", size, rank or 0, local_rank, local_size, evidence)


def _hydra(environ: Mapping[str, str]) -> LauncherEnvironment | None:
    """MPICH's mpirun and its relatives: Intel MPI, MVAPICH."""
    size, rank = _number(environ, "PMI_SIZE"), _number(environ, "PMI_RANK")
    local_rank, local_size = _number(environ, "MPI_LOCALRANKID"), _number(environ, "MPI_LOCALNRANKS")
    if size is None or rank is None or local_size is None:
        return None
    name = "Intel MPI's mpirun" if any(key.startswith("I_MPI_HYDRA") for key in environ) else "MPICH's mpirun"
    return LauncherEnvironment(name, "mpich", size, rank, local_rank, local_size, f"PMI_SIZE={size}")


def _slurm(environ: Mapping[str, str]) -> LauncherEnvironment | None:
    """Slurm's srun. The shell of sbatch and salloc has part of these variables too, but is one process without MPI."""
    size, rank = _number(environ, "SLURM_STEP_NUM_TASKS"), _number(environ, "SLURM_PROCID")
    step = _number(environ, "SLURM_STEP_ID")
    if size is None or rank is None or (step is not None and step >= _FIRST_RESERVED_SLURM_STEP):
        return None
    local_rank = _number(environ, "SLURM_LOCALID")
    nodes = _number(environ, "SLURM_STEP_NUM_NODES")
    return LauncherEnvironment(
        "srun", None, size, rank, local_rank, size if nodes == 1 else None, f"SLURM_STEP_NUM_TASKS={size}"
    )


def _pmi(environ: Mapping[str, str]) -> LauncherEnvironment | None:
    """Another launcher that speaks PMI, the interface of MPICH, which other libraries know too."""
    size, rank = _number(environ, "PMI_SIZE"), _number(environ, "PMI_RANK")
    if size is None or rank is None:
        return None
    return LauncherEnvironment("a PMI launcher", None, size, rank, None, None, f"PMI_SIZE={size}")


def _pmix(environ: Mapping[str, str]) -> LauncherEnvironment | None:
    """A launcher that speaks PMIx (prterun, flux), which names the rank and not the count of ranks."""
    rank = _number(environ, "PMIX_RANK")
    if rank is None:
        return None
    return LauncherEnvironment("a PMIx launcher", None, None, rank, None, None, f"PMIX_RANK={rank}")


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else None


def number_nodes(memory_groups: Sequence[int], boot_ids: Sequence[str]) -> list[int]:
    """For each rank the number of its node, counted from 0 in the order of their lowest ranks.

    Two ranks share a node when MPI puts them in one of the `memory_groups` and both see the same boot of the same
    kernel: containers of one machine may share no memory, and machines of one hostname are not one. Where a system has
    no boot id (""), MPI's word alone counts.
    """
    numbers: dict[tuple[int, str], int] = {}
    return [numbers.setdefault(place, len(numbers)) for place in zip(memory_groups, boot_ids, strict=True)]


def mpi_family(library_version: str) -> str | None:
    """The family, "openmpi" or "mpich", of a library by its MPI.Get_library_version(); None if it is neither."""
    text = library_version.lower()
    if "open mpi" in text or "spectrum mpi" in text:
        return "openmpi"
    if any(name in text for name in ("mpich", "intel(r) mpi", "mvapich")):
        return "mpich"
    return None


def first_line(library_version: str) -> str:
    """The name and number of an MPI library from its version text, in one short line."""
    line = library_version.replace("\0", "").strip().splitlines()[0]
    return " ".join(line.split(",")[0].replace("Version:", " ").split())

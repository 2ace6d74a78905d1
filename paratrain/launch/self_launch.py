"""Starting the ranks ourselves: what `paratrain train -gpu 0,1` does when no mpirun has started it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from paratrain.errors import CommunicationError

_PROGRAMS = ("mpirun", "mpiexec")


def launch_ranks(rank_count: int, command: Sequence[str]) -> NoReturn:
    """Become `mpirun -n rank_count command`: this process is replaced, so signals and the exit code are mpirun's.

    CommunicationError if there is no mpirun.
    """
    mpirun = find_mpirun(os.environ)
    arguments = mpirun_arguments(
        mpirun, mpirun_family(mpirun), rank_count, command, os.geteuid() == 0, own_core_count()
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(arguments[0], arguments)  # noqa: S606, an argument list, no shell


def find_mpirun(environ: Mapping[str, str]) -> Path:
    """The mpirun of the MPI that mpi4py will load: beside MPI4PY_LIBMPI, beside this Python, then on PATH.

    mpi4py looks for the library in the same order: the named file, the virtual environment, the system.
    """
    folders = []
    library = environ.get("MPI4PY_LIBMPI", "")
    if os.sep in library:
        folders.append(Path(library).parent.parent / "bin")
    folders.append(Path(sys.executable).parent)
    for folder in folders:
        for program in _PROGRAMS:
            if os.access(folder / program, os.X_OK):
                return folder / program
    for program in _PROGRAMS:
        found = shutil.which(program, path=environ.get("PATH"))
        if found is not None:
            return Path(found)
    raise CommunicationError(
        f"several ranks need mpirun, and there is none beside this Python ({Path(sys.executable).parent}) and none on "
        "PATH. Install one with pip install 'paratrain[mpi]', or load the MPI of your cluster (module load ...)"
    )


def mpirun_family(mpirun: Path) -> str:
    """What `mpirun --version` says: "openmpi", or "mpich" for MPICH and Intel MPI; CommunicationError if neither."""
    try:
        asked = subprocess.run([str(mpirun), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommunicationError(f"{mpirun} --version could not be run: {error}") from error
    text = asked.stdout + asked.stderr
    if "Open MPI" in text or "OpenRTE" in text:
        return "openmpi"
    if any(name in text for name in ("HYDRA", "MPICH", "Intel(R) MPI")):
        return "mpich"
    found = text.strip().splitlines()[0] if text.strip() else "nothing"
    raise CommunicationError(
        f"{mpirun} --version says {found!r}: expected Open MPI, MPICH or Intel MPI. Start the ranks yourself, as in "
        f"{mpirun} -n 2 paratrain train solver.prototxt"
    )


def mpirun_arguments(
    mpirun: Path,
    family: str,
    rank_count: int,
    command: Sequence[str],
    is_root: bool,
    core_count: int,
    *,
    hosts: Sequence[str] = (),
    options: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> list[str]:
    """The command line that starts `command` on `rank_count` ranks of this machine, or of the `hosts`, each NAME:SLOTS.

    Open MPI wants to be told that root may run it and that there may be more ranks than cores; it also binds each of
    one or two ranks to a single core, where a rank has threads for more, and takes no environment `variables` to other
    machines by itself. MPICH does none of this. `options` come last, before `command`, as they are.
    """
    arguments = [str(mpirun), "-n", str(rank_count)]
    if family == "openmpi":
        arguments += ["--bind-to", "none"]
        if is_root:
            arguments.append("--allow-run-as-root")
        if rank_count > core_count and not hosts:
            arguments.append("--oversubscribe")
        if hosts:
            arguments += ["--host", ",".join(hosts)]
        for name in variables:
            arguments += ["-x", name]
    elif hosts:
        arguments += ["-hosts", ",".join(hosts)]
    return [*arguments, *options, *command]


def own_core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))

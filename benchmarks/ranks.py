"""Start the ranks of a benchmark, or the processes of its peer: one thread each, all on this node."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from machine import REPOSITORY


def run_ranks(size: int, script: str, *arguments: str) -> str:
    """Run `script` with this Python as so many ranks under mpirun; return what they print."""
    mpirun = Path(sys.executable).with_name("mpirun")
    launcher = str(mpirun) if mpirun.exists() else shutil.which("mpirun")
    assert launcher, "mpirun is not there; install paratrain[mpi]"
    command = [launcher, "-n", str(size), sys.executable, script, *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def run_peers(python: str, size: int, script: Path, *arguments: str) -> str:
    """Run `script` as so many processes that find each other as torch.distributed's do; return what rank 0 prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = environment() | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [python, str(script), *arguments]
    processes = [
        subprocess.Popen(command, env=place | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(size)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"{' '.join(command)} failed")
    return outputs[0]


def environment() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return os.environ | dict.fromkeys(names, "1") | {"PYTHONPATH": path}

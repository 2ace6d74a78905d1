"""Ask the program nvidia-smi where NVML's library cannot be asked: its list of GPUs and its matrix of links."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence

from paratrain.errors import TopologyError
from paratrain.topology.machine import Gpu, Machine
from paratrain.topology.sources.pci import normal_bus_id
from paratrain.topology.text.matrix import read_machine as read_matrix

SOURCE = "nvidia-smi topo -m"
_LIMIT_S = 20.0
_FIELDS = ("index", "pci.bus_id", "uuid", "name", "memory.total", "compute_cap")
Run = Callable[[Sequence[str]], str]


class NvidiaSmiError(Exception):
    """nvidia-smi is not there, failed or did not end; the text says which."""


def run(arguments: Sequence[str], limit_s: float = _LIMIT_S) -> str:
    """What ``nvidia-smi`` with these arguments prints. NvidiaSmiError if it cannot be started, fails or does not end.

    A program that hangs in the driver cannot even be killed: it is left behind.
    """
    environment = os.environ | {"LC_ALL": "C", "TERM": "dumb"}
    try:
        process = subprocess.Popen(
            ["nvidia-smi", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    except OSError as error:
        raise NvidiaSmiError(
            "nvidia-smi is not on PATH" if isinstance(error, FileNotFoundError) else str(error)
        ) from error
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            process.communicate(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.returncode = -9  # given up: nobody waits for it any more
        raise NvidiaSmiError(f"nvidia-smi {' '.join(arguments)} did not end within {limit_s:g} s") from None
    text = output.decode("utf-8", errors="replace")
    if process.returncode != 0:
        said = " ".join(text.split())[-100:]
        raise NvidiaSmiError(f"nvidia-smi {' '.join(arguments)} failed with exit code {process.returncode}: {said}")
    return text


def read_gpus(run: Run = run) -> list[Gpu]:
    """The GPUs that nvidia-smi lists, by its numbers. NvidiaSmiError if it lists none."""
    text = run([f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"])
    gpus: list[Gpu] = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) != len(_FIELDS) or not words[0].isdecimal() or int(words[0]) in [gpu.index for gpu in gpus]:
            continue
        index, bus_id, uuid, name, memory, capability = words
        gpus.append(
            Gpu(
                int(index),
                name="" if name.startswith("[") else name,  # [N/A], [Not Supported]
                bus_id=normal_bus_id(bus_id),
                uuid="" if uuid.startswith("[") else uuid,
                memory_bytes=int(memory) * 2**20 if memory.isdecimal() else None,
                compute_capability=capability if capability.replace(".", "").isdecimal() else "",
                nvml_index=int(index),
            )
        )
    if not gpus:
        raise NvidiaSmiError("nvidia-smi lists no GPU")
    return gpus


def read_links(run: Run = run) -> Machine:
    """The machine of nvidia-smi's matrix. NvidiaSmiError if there is none, as in containers that may use no core."""
    try:
        return read_matrix(run(["topo", "-m"]), SOURCE)
    except TopologyError as error:
        raise NvidiaSmiError(str(error)) from error

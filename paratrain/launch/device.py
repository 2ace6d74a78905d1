"""What a command computes on: on this rank's GPU, or on the CPU and why."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass

from paratrain import gpu
from paratrain.backends import BACKEND_VARIABLE, DEFAULT_BACKEND, Backend, create_backend
from paratrain.errors import DeviceError
from paratrain.topology.machine import Gpu, Machine, gpu_list
from paratrain.topology.selection import select_gpus

__all__ = ["GPU_BACKEND", "Computing", "choose", "count_ranks", "visible_gpus"]

GPU_BACKEND = "cupy"


def find_machine() -> Machine:
    """This node and its GPUs. What looks for them is loaded when it is first needed: runs on the CPU do without."""
    from paratrain.topology.sources import find

    return find.find_machine()


@dataclass(frozen=True)
class Computing:
    """What this rank computes on."""

    gpu: Gpu | None = None
    """Its GPU, by CUDA's number; None for the CPU."""
    reason: str = ""
    """Why the CPU is used."""
    backend_name: str | None = None
    """What :func:`create_backend` is asked for."""
    chosen: tuple[int, ...] = ()
    """The GPUs of this node among which its ranks are dealt."""

    def create_backend(self, precision: str | None = None, *, fast: bool = False, autotune: bool = False) -> Backend:
        """Make the backend; on a GPU this selects it for this thread, before anything of CUDA's is made there. DeviceError where
        it cannot be had: it is full, or another process's alone.
        """
        if self.gpu is not None:
            try:
                gpu.library().cuda.Device(self.gpu.index).use()
            except RuntimeError as error:  # CUDA's, which begins to use memory there
                raise DeviceError(
                    f"{self.description} cannot be used: {error}. nvidia-smi shows whether others leave memory there, and "
                    "whether its compute mode allows another process"
                ) from error
        return create_backend(self.backend_name, precision, fast=fast, autotune=autotune)

    @property
    def description(self) -> str:
        """``GPU 2 (NVIDIA H100, bus 0000:3b:00.0)``; ``CPU``."""
        return "CPU" if self.gpu is None else f"GPU {self.gpu.index} ({self.gpu.name}, bus {self.gpu.bus_id})"


def visible_gpus() -> Machine:
    """The GPUs that CUDA shows to this process, under its numbers; where it shows none, why. No context is made on any."""
    problem = gpu.problem()
    if problem is not None:
        return Machine(source="CUDA", no_gpu_reason=problem)
    runtime = gpu.library().cuda.runtime
    found = []
    for index in range(runtime.getDeviceCount()):
        properties = runtime.getDeviceProperties(index)
        name = properties["name"]
        found.append(
            Gpu(
                index,
                name=name.decode() if isinstance(name, bytes) else str(name),
                bus_id=str(runtime.deviceGetPCIBusId(index)).lower(),
                uuid=gpu.uuid_text(properties),
                memory_bytes=int(properties["totalGlobalMem"]),
                compute_capability=f"{properties['major']}.{properties['minor']}",
            )
        )
    return Machine(source="CUDA", gpus=tuple(found))


def choose(
    arguments: argparse.Namespace,
    *,
    gpu_mode: bool = True,
    device_id: int | None = None,
    local_rank: int = 0,
    environ: Mapping[str, str] = os.environ,
) -> Computing:
    """Choose by ``-gpu``, ``--cpu`` and ``--backend``, and whether the solver asks for GPU mode, and of which GPU.

    Rank l of a node takes GPU l of those that ``-gpu`` lists, or of all; with more ranks than GPUs they are dealt in turns.
    ``device_id`` is the solver's, for a run of one rank. DeviceError where a GPU is demanded that cannot be had, or options
    contradict each other.
    """
    asked, variable = arguments.backend, environ.get(BACKEND_VARIABLE) or None
    on_cpu = variable if variable != GPU_BACKEND else None
    if arguments.cpu:
        if asked == GPU_BACKEND:
            raise DeviceError(f"--cpu and --backend {GPU_BACKEND} contradict each other: leave one of them out")
        return Computing(None, "--cpu", asked or on_cpu or DEFAULT_BACKEND)
    if arguments.gpu is not None:
        if asked not in (None, GPU_BACKEND):
            raise DeviceError(
                f"-gpu {arguments.gpu} and --backend {asked}, which computes on the CPU, contradict each other: leave one of "
                "them out"
            )
        option = f"-gpu {arguments.gpu}"
    elif GPU_BACKEND in (asked, None if asked else variable):
        option = f"--backend {GPU_BACKEND}" if asked else f"{BACKEND_VARIABLE}={GPU_BACKEND}"
    else:
        option = ""
        if asked:
            return Computing(None, f"--backend {asked}", asked)
        if not gpu_mode:
            return Computing(None, "solver_mode: CPU")
        if on_cpu:
            return Computing(None, f"{BACKEND_VARIABLE}={on_cpu}", on_cpu)
    machine = visible_gpus()
    if not machine.gpus:
        reason = _why_none(machine, option, arguments.gpu)
        return Computing(None, reason, on_cpu or (DEFAULT_BACKEND if variable else None))
    if arguments.gpu is not None:
        numbers = select_gpus(arguments.gpu, machine)
    elif device_id is not None:
        if device_id not in machine.indices:
            raise DeviceError(
                f"the solver's device_id is {device_id}, and this machine has {gpu_list(machine.indices)}: change it, or say "
                "-gpu N, which counts more"
            )
        numbers = [device_id]
    else:
        numbers = list(machine.indices)
    own = numbers[local_rank % len(numbers)]
    found = next(one for one in machine.gpus if one.index == own)
    return Computing(found, "", GPU_BACKEND, tuple(numbers))


def _why_none(machine: Machine, option: str, listed: str | None) -> str:
    """Why the CPU computes where CUDA shows no GPU. DeviceError if ``option`` demands one."""
    found = find_machine()
    if not found.gpus:
        if option:
            raise DeviceError(
                f"{option}: no NVIDIA GPU: {found.no_gpu_reason or found.source}; leave out {option.split()[0]} or use --cpu"
            )
        return f"no NVIDIA GPU: {found.no_gpu_reason or found.source}"
    if listed is not None:
        select_gpus(listed, found)
    if option:
        raise DeviceError(f"{option}: {machine.no_gpu_reason}; or leave out {option.split()[0]}, and the CPU computes")
    return f"{machine.no_gpu_reason}; {gpu_list(found.indices)} idle"


def count_ranks(listed: str | None, cpu: bool) -> int:
    """Return how many ranks ``-gpu`` asks for: one for each GPU, or with ``--cpu`` one for each number in the list.

    Raises DeviceError for a list that cannot be read, and for a GPU that is not there or cannot be used.
    """
    if listed is None:
        return 1
    if cpu:
        words = [word.strip() for word in listed.split(",")]
        if len(set(words)) != len(words) or not all(word.isascii() and word.isdecimal() for word in words):
            raise DeviceError(
                f"--cpu -gpu {listed}: expected different numbers, one for each rank, as in --cpu -gpu 0,1"
            )
        return len(words)
    machine = visible_gpus()
    if not machine.gpus:
        _why_none(machine, f"-gpu {listed}", listed)
    return len(select_gpus(listed, machine))

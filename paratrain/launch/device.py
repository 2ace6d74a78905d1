"""What a command computes on. This version has one backend, which runs on the CPU; it says so, and why."""

from __future__ import annotations

from paratrain.errors import DeviceError
from paratrain.topology.machine import Machine
from paratrain.topology.selection import select_gpus

__all__ = ["choose_cpu", "computing_gpus", "count_ranks"]

BACKEND = "numpy"
GPU_BACKENDS: frozenset[str] = frozenset()  # those that compute on GPUs: none in this version


def find_machine() -> Machine:
    """This node and its GPUs. What looks for them is loaded when it is first needed: runs on the CPU do without."""
    from paratrain.topology.sources import find

    return find.find_machine()


def choose_cpu(gpu: str | None, cpu: bool, gpu_mode: bool) -> str:
    """Return why the CPU is used, given ``-gpu``, ``--cpu``, and whether the solver asks for GPU mode.

    Raises DeviceError for a GPU that is asked for by ``-gpu`` and not there.
    """
    if cpu:
        return "--cpu"
    if gpu is not None:
        select_gpus(gpu, find_machine())
        return "this version of paratrain has no GPU backend; the GPUs stay idle"
    if not gpu_mode:
        return "solver_mode: CPU"
    machine = find_machine()
    if not machine.gpus:
        return f"no NVIDIA GPU: {machine.no_gpu_reason or machine.source}"
    return "this version of paratrain has no GPU backend; the GPUs stay idle"


def computing_gpus(gpu: str | None, cpu: bool) -> Machine:
    """Return this node with the GPUs on which a run computes, which is none of them unless the backend computes on GPUs.

    Raises DeviceError for a GPU that is asked for by ``-gpu`` and not there.
    """
    if cpu or BACKEND not in GPU_BACKENDS:
        return Machine(no_gpu_reason="the run computes on the CPU")
    machine = find_machine()
    return machine if gpu is None else machine.select(select_gpus(gpu, machine))


def count_ranks(gpu: str | None, cpu: bool) -> int:
    """Return how many ranks ``-gpu`` asks for: one for each GPU, or with ``--cpu`` one for each number in the list.

    Raises DeviceError for a list that cannot be read, and for a GPU that is not there.
    """
    if gpu is None:
        return 1
    if cpu:
        words = [word.strip() for word in gpu.split(",")]
        if len(set(words)) != len(words) or not all(word.isascii() and word.isdecimal() for word in words):
            raise DeviceError(f"--cpu -gpu {gpu}: expected different numbers, one for each rank, as in --cpu -gpu 0,1")
        return len(words)
    return len(select_gpus(gpu, find_machine()))

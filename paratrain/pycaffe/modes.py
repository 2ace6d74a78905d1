"""Where nets compute, and from which random numbers."""

from __future__ import annotations

import functools
import os
import warnings
import weakref

from paratrain import gpu
from paratrain.backends import BACKEND_VARIABLE, DEFAULT_BACKEND, Backend, create_backend
from paratrain.comm.environment import launcher_environment
from paratrain.errors import DeviceError
from paratrain.launch.device import GPU_BACKEND, Computing, visible_gpus
from paratrain.layers import LAYERS
from paratrain.pycaffe.ranks import choices
from paratrain.topology.machine import gpu_list

__all__ = [
    "layer_type_list",
    "new_backend",
    "note_made",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
    "wait_for_gpus",
]

_made_on_cpu: weakref.WeakSet[object] = weakref.WeakSet()
"""Nets and solvers that were made on the CPU before anybody had chosen a mode."""
_gpu_backends: weakref.WeakSet[Backend] = weakref.WeakSet()


def set_mode_cpu() -> None:
    """Let nets and solvers that are made from now on compute on the CPU, as they do where nobody has said anything."""
    choices.is_gpu_mode = False
    _made_on_cpu.clear()


def set_mode_gpu() -> None:
    """Let nets and solvers that are made from now on compute on a GPU: that of :func:`set_device`, else one for each rank of
    a machine in turn. Where there is none it warns, and the CPU computes. It also warns where there are some already.
    """
    problem = gpu.problem()
    if problem is not None:
        warnings.warn(f"set_mode_gpu(): the CPU computes: {problem}", stacklevel=2)
    elif _made_on_cpu:
        warnings.warn(
            f"set_mode_gpu(): of the nets and solvers made before, {len(_made_on_cpu)} go on computing on the CPU; call it "
            "before they are made",
            stacklevel=2,
        )
    _made_on_cpu.clear()
    choices.is_gpu_mode = problem is None


def set_device(device: int) -> None:
    """Choose the GPU, by CUDA's number, of nets and solvers that are made from now on in GPU mode.

    Raises DeviceError for one that is not there; where there is none at all it warns.
    """
    machine = visible_gpus()
    if not machine.gpus:
        warnings.warn(f"set_device({device}): the CPU computes: {machine.no_gpu_reason}", stacklevel=2)
    elif device not in machine.indices:
        raise DeviceError(f"set_device({device}): this machine has {gpu_list(machine.indices)}")
    choices.device = device


def new_backend() -> Backend:
    """The backend for a net or solver that is made now: the same one for all on a GPU, which may share their parameters."""
    by_variable = os.environ.get(BACKEND_VARIABLE) == GPU_BACKEND
    if choices.is_gpu_mode is None:
        return _on_gpu(_device()) if by_variable and gpu.problem() is None else create_backend()
    if choices.is_gpu_mode:
        problem = gpu.problem()
        if problem is not None:  # since set_mode_gpu: this process is a fork of the one that called it
            raise DeviceError(problem)
        return _on_gpu(_device())
    return create_backend(DEFAULT_BACKEND if by_variable else None)


def note_made(made: object, backend: Backend) -> None:
    """Remember that a net or solver computes on the CPU without having been told to, for :func:`set_mode_gpu`."""
    if choices.is_gpu_mode is None and backend.device is None:
        _made_on_cpu.add(made)


def wait_for_gpus() -> None:
    """Return when the GPUs have done all that nets and solvers have given them, for whoever measures times."""
    if _gpu_backends and gpu.problem() is None:  # a fork cannot ask them
        for backend in list(_gpu_backends):
            backend.synchronize()


def _device() -> int:
    if choices.device is not None:
        return choices.device
    launcher = launcher_environment(os.environ)
    local_rank = choices.solver_rank if launcher is None else launcher.local_rank
    return (local_rank or 0) % len(visible_gpus().gpus)


@functools.cache
def _on_gpu(device: int) -> Backend:
    found = next(one for one in visible_gpus().gpus if one.index == device)
    backend = Computing(found, backend_name=GPU_BACKEND).create_backend()
    _gpu_backends.add(backend)
    return backend


def set_random_seed(seed: int) -> None:
    """Fix the random numbers of nets and solvers made from now on (a solver's own ``random_seed`` comes first).

    A negative seed, as in a solver's file, lets each draw its own again.
    """
    choices.seed = seed if seed >= 0 else None


def layer_type_list() -> list[str]:
    """The layer types that a prototxt may name."""
    return LAYERS.names()

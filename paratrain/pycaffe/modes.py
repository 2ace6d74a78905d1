"""Where nets compute, and from which random numbers."""

from __future__ import annotations

import warnings

from paratrain.layers import LAYERS
from paratrain.pycaffe.ranks import choices

__all__ = ["layer_type_list", "set_device", "set_mode_cpu", "set_mode_gpu", "set_random_seed"]


def set_mode_cpu() -> None:
    """Compute on the CPU, which is what this version does anyway."""


def set_mode_gpu() -> None:
    """Ask for GPU mode. This version has no GPU backend: it warns and goes on with the CPU."""
    warnings.warn("set_mode_gpu(): this version of paratrain computes on the CPU only, and does so now", stacklevel=2)


def set_device(device: int) -> None:
    """Choose a GPU. This version has no GPU backend: it warns and goes on with the CPU."""
    warnings.warn(f"set_device({device}): this version of paratrain computes on the CPU only", stacklevel=2)


def set_random_seed(seed: int) -> None:
    """Fix the random numbers of nets and solvers made from now on (a solver's own ``random_seed`` comes first).

    A negative seed, as in a solver's file, lets each draw its own again.
    """
    choices.seed = seed if seed >= 0 else None


def layer_type_list() -> list[str]:
    """The layer types that a prototxt may name."""
    return LAYERS.names()

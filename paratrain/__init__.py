"""paratrain: train Caffe networks on many processors, with nothing to compile.

``import paratrain as caffe`` gives the names of pycaffe that scripts use. They are loaded when first used, so that
``import paratrain`` itself is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paratrain.blob import Blob
    from paratrain.errors import ParatrainError
    from paratrain.pycaffe import (
        TEST,
        TRAIN,
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        Layer,
        NesterovSolver,
        Net,
        RMSPropSolver,
        SGDSolver,
        get_solver,
        init_log,
        layer_type_list,
        root_solver,
        set_device,
        set_mode_cpu,
        set_mode_gpu,
        set_random_seed,
        solver_count,
        solver_rank,
    )

__version__ = "0.1.0"

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Layer",
    "NesterovSolver",
    "Net",
    "ParatrainError",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
    "init_log",
    "layer_type_list",
    "root_solver",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
    "solver_count",
    "solver_rank",
]

_ELSEWHERE = {"Blob": "paratrain.blob", "ParatrainError": "paratrain.errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'paratrain' has no attribute '{name}'")
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, "paratrain.pycaffe")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""paratrain: train Caffe networks on many processors, with nothing to compile.

``import paratrain as caffe`` gives the names of pycaffe that scripts use. They are loaded when first used, so that
``import paratrain`` itself is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paratrain import layers, log, proto
    from paratrain.blob import Blob
    from paratrain.errors import ParatrainError
    from paratrain.pycaffe import (
        NCCL,
        TEST,
        TRAIN,
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        Classifier,
        Detector,
        Layer,
        NesterovSolver,
        Net,
        NetSpec,
        RMSPropSolver,
        SGDSolver,
        Timer,
        coord_map,
        draw,
        get_solver,
        has_nccl,
        init_log,
        io,
        layer_type_list,
        net_spec,
        params,
        root_solver,
        set_device,
        set_mode_cpu,
        set_mode_gpu,
        set_multiprocess,
        set_random_seed,
        set_solver_count,
        set_solver_rank,
        solver_count,
        solver_rank,
        to_proto,
    )

__version__ = "0.1.0"

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "ParatrainError",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "coord_map",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "root_solver",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]

_ELSEWHERE = {"Blob": "paratrain.blob", "ParatrainError": "paratrain.errors"}
# What has a name of pycaffe's and serves as that too: layers.Convolution(...), log("..."), proto.caffe_pb2.
_PACKAGES = ("layers", "log", "proto")
# Modules of pycaffe's that scripts reach into without importing them: type(net.params[name]) is caffe._caffe.BlobVec.
_MODULES = {
    "_caffe": "pycaffe",
    "classifier": "pycaffe.classifier",
    "detector": "pycaffe.detector",
    "pycaffe": "pycaffe",
}


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"paratrain.{name}")
    if name in _MODULES:
        return importlib.import_module(f"paratrain.{_MODULES[name]}")
    if name not in __all__:
        raise AttributeError(f"module 'paratrain' has no attribute '{name}'")
    value = getattr(importlib.import_module(_ELSEWHERE.get(name, "paratrain.pycaffe")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

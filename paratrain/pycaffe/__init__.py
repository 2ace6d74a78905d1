"""The names of pycaffe: ``import paratrain as caffe``, or ``import paratrain.pycaffe as caffe``.

A script run by itself is one rank. The same script under ``mpirun`` is started once for every rank:
``get_solver(...).solve()`` then trains on all of them, and ``solver_rank()`` tells which one this is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paratrain import __version__
from paratrain.blob import Blob, BlobVector
from paratrain.layers.python import UserLayer as Layer
from paratrain.proto import TEST, TRAIN, LayerParameter
from paratrain.pycaffe.logs import init_log, log
from paratrain.pycaffe.modes import layer_type_list, set_device, set_mode_cpu, set_mode_gpu, set_random_seed
from paratrain.pycaffe.nccl import NCCL, has_nccl
from paratrain.pycaffe.net import Net
from paratrain.pycaffe.ranks import (
    root_solver,
    set_multiprocess,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from paratrain.pycaffe.solvers import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from paratrain.pycaffe.timer import Timer
from paratrain.solvers import Solver as Solver  # of caffe._caffe, as BlobVec is

if TYPE_CHECKING:
    from paratrain import proto
    from paratrain.pycaffe import coord_map, draw, io, net_spec
    from paratrain.pycaffe.classifier import Classifier
    from paratrain.pycaffe.detector import Detector
    from paratrain.pycaffe.net_spec import NetSpec, layers, params, to_proto

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
    "LayerParameter",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "__version__",
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

BlobVec = BlobVector
"""What ``net.params[name]`` is, as scripts that merge BatchNorm into weights ask: ``caffe._caffe.BlobVec``."""

_MODULES = {
    "_caffe": "paratrain.pycaffe",
    "classifier": "paratrain.pycaffe.classifier",
    "coord_map": "paratrain.pycaffe.coord_map",
    "detector": "paratrain.pycaffe.detector",
    "draw": "paratrain.pycaffe.draw",
    "io": "paratrain.pycaffe.io",
    "net_spec": "paratrain.pycaffe.net_spec",
    "proto": "paratrain.proto",
    "pycaffe": "paratrain.pycaffe",
}
_ELSEWHERE = {
    "Classifier": "paratrain.pycaffe.classifier",
    "Detector": "paratrain.pycaffe.detector",
    "NetSpec": "paratrain.pycaffe.net_spec",
    "layers": "paratrain.pycaffe.net_spec",
    "params": "paratrain.pycaffe.net_spec",
    "to_proto": "paratrain.pycaffe.net_spec",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name in _ELSEWHERE:
        value = getattr(importlib.import_module(_ELSEWHERE[name]), name)
    else:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

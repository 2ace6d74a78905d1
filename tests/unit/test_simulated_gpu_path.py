"""The stand-ins for a GPU's libraries come and go without a trace."""

from __future__ import annotations

import sys
from pathlib import Path

from paratrain import gpu
from tests.simulated_gpu_path import SIMULATED_GPU, install, uninstall


def test_stand_ins_come_and_go() -> None:
    path, modules = (
        list(sys.path),
        {name for name in sys.modules if name.split(".")[0] in ("cuda", "cupy", "cupyx", "simulated")},
    )
    problem = gpu.problem()
    for _ in range(2):
        cupy = install()
        try:
            assert gpu.library() is cupy and Path(cupy.__file__).is_relative_to(SIMULATED_GPU)
            assert gpu.problem() is None
            assert float(cupy.ones(3).sum()) == 3
        finally:
            uninstall()
    assert sys.path == path
    assert not [
        module
        for module in list(sys.modules.values())
        if f"{SIMULATED_GPU}/" in (getattr(module, "__file__", "") or "")
    ]
    assert modules <= set(sys.modules)
    assert gpu.problem() == problem

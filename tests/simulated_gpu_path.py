"""Putting the simulated GPU (tests/simulated_gpu) where ``import cupy`` finds it: in this process for a while, or in others.

A folder of tests that all use it has a conftest.py with one line::

    from tests.simulated_gpu_path import simulated_gpu  # noqa: F401

``simulated_gpu`` is a fixture that every test there uses without asking, and that gives the stand-in for the module cupy.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.paths import REPOSITORY, TESTS

__all__ = ["SIMULATED_GPU", "environment", "install", "simulated_gpu", "uninstall"]

SIMULATED_GPU = TESTS / "simulated_gpu"
_PACKAGES = ("cuda", "cupy", "cupyx", "cudnn", "simulated")
_CACHING = ("paratrain.gpu", "paratrain.backends.cupy", "paratrain.layers.cupy")
_stand_ins: dict[str, ModuleType] = {}
_others: dict[str, ModuleType] = {}


def _take(modules: dict[str, ModuleType]) -> None:
    """Move what is loaded of the packages from sys.modules to ``modules``."""
    for name in list(sys.modules):
        if name.split(".")[0] in _PACKAGES:
            modules[name] = sys.modules.pop(name)


def _forget() -> None:
    """Empty the caches of the modules that remember what the library gave them."""
    for name, module in list(sys.modules.items()):
        if name.startswith(_CACHING):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def install() -> Any:
    """Make the stand-ins what ``import`` finds from now on, and return that for cupy."""
    _others.clear()
    _take(_others)
    sys.modules.update(_stand_ins)
    sys.path.insert(0, str(SIMULATED_GPU))
    _forget()
    importlib.invalidate_caches()
    module = importlib.import_module("cupy")
    assert Path(str(module.__file__)).is_relative_to(SIMULATED_GPU)
    return module


def uninstall() -> None:
    """Undo `install`: other tests of this process see the libraries that are installed, if any."""
    _forget()
    sys.path.remove(str(SIMULATED_GPU))
    _stand_ins.clear()
    _take(_stand_ins)
    sys.modules.update(_others)
    _others.clear()
    importlib.invalidate_caches()


@pytest.fixture(scope="module", autouse=True)
def simulated_gpu() -> Iterator[Any]:
    """The stand-in for cupy, for the tests of one file."""
    if shutil.which("g++") is None:
        pytest.skip("the simulated GPU compiles kernels by g++, which is not here")
    yield install()
    uninstall()


def environment(gpus: int = 1, **more: str) -> dict[str, str]:
    """The environment of a process that sees so many simulated GPUs."""
    path = os.pathsep.join([str(SIMULATED_GPU), str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "SIMULATED_GPUS": str(gpus), **more}

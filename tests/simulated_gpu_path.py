"""Putting the simulated GPU (tests/simulated_gpu) where ``import cupy`` finds it: in this process for a while, or in others.

A folder of tests that all use it has a conftest.py with one line::

    from tests.simulated_gpu_path import simulated_gpu  # noqa: F401

``simulated_gpu`` is a fixture that every test there uses without asking, and that gives the stand-in for the module cupy.

With ``PARATRAIN_REAL_GPU=1`` in the environment the stand-ins step aside: the same tests run on the GPU of the machine, as
scripts/gpu-check has them do, and the fixture gives the real module. What a test says about the counts of the simulation
holds then whatever it says; a test that looks deeper into it, or that needs other processes to see simulated GPUs, is skipped.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.paths import REPOSITORY, TESTS

__all__ = ["IS_REAL", "SIMULATED_GPU", "environment", "install", "simulated_gpu", "uninstall"]

IS_REAL = os.environ.get("PARATRAIN_REAL_GPU") == "1"
"""Whether tests run on the GPU of the machine."""
SIMULATED_GPU = TESTS / "simulated_gpu"
_PACKAGES = ("cuda", "cupy", "cupyx", "cudnn", "simulated")
_CACHING = ("paratrain.gpu", "paratrain.backends.cupy", "paratrain.layers.cupy", "paratrain.pycaffe.modes")
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


class _Unknown:
    """A number that nobody counted, and what is computed or compared with it: all that a test says of it is true."""

    def _self(self, _: object) -> _Unknown:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __lt__ = __le__ = __gt__ = __ge__ = _self
    __eq__ = __ne__ = _self  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __int__(self) -> int:
        pytest.skip("a real GPU does not count what it does")


class _NoCounts(Mapping[str, Any]):
    """Stands for ``simulated.counts``."""

    def __getitem__(self, key: str) -> Any:
        return _Unknown()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def get(self, key: str, default: Any = None) -> Any:
        return _Unknown()

    def copy(self) -> _NoCounts:
        return self

    def items(self) -> Any:
        int(_Unknown())


class _NotSimulated(ModuleType):
    """Stands for the module ``simulated`` where the GPU is real."""

    counts = _NoCounts()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        pytest.skip("looks into the simulated GPU, and this one is real")


def _use_real_gpu() -> Any:
    from paratrain import gpu

    problem = gpu.problem()
    if problem is not None:
        pytest.fail(f"PARATRAIN_REAL_GPU=1, but {problem}")
    if importlib.util.find_spec("simulated") is None:  # it is there where the stand-ins are what is installed
        sys.modules["simulated"] = _NotSimulated("simulated")
    if os.environ.get("PARATRAIN_GPU_POOL") == "0":  # compute-sanitizer sees each array by itself then
        gpu.library().cuda.set_allocator(None)
    return gpu.library()


def install() -> Any:
    """Make the stand-ins what ``import`` finds from now on, and return that for cupy."""
    if IS_REAL:
        return _use_real_gpu()
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
    if IS_REAL:
        if isinstance(sys.modules.get("simulated"), _NotSimulated):
            del sys.modules["simulated"]
        return
    _forget()
    if (gpu := sys.modules.get("paratrain.gpu")) is not None:
        vars(gpu)["_is_used"] = False  # processes may be forked again
    sys.path.remove(str(SIMULATED_GPU))
    _stand_ins.clear()
    _take(_stand_ins)
    sys.modules.update(_others)
    _others.clear()
    importlib.invalidate_caches()


@pytest.fixture(scope="module", autouse=True)
def simulated_gpu() -> Iterator[Any]:
    """The stand-in for cupy, for the tests of one file."""
    if not IS_REAL and shutil.which("g++") is None:
        pytest.skip("the simulated GPU compiles kernels by g++, which is not here")
    yield install()
    uninstall()


def environment(gpus: int = 1, **more: str) -> dict[str, str]:
    """The environment of a process that sees so many simulated GPUs."""
    if IS_REAL:
        pytest.skip("starts processes that see simulated GPUs")
    path = os.pathsep.join([str(SIMULATED_GPU), str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "SIMULATED_GPUS": str(gpus), **more}

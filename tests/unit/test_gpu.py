"""The door to CuPy where something is wrong with it."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paratrain import gpu
from paratrain.errors import MissingDependencyError
from paratrain.linktest.cuda import CupyRuntime


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    gpu.library.cache_clear()
    gpu.problem.cache_clear()
    yield
    gpu.library.cache_clear()
    gpu.problem.cache_clear()


def test_a_library_that_does_not_load_is_not_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [
        ModuleNotFoundError("No module named 'cupy'", name="cupy"),
        ImportError("libnvrtc.so.13: cannot open"),
        PermissionError("no place"),  # for compiled kernels
    ]

    def import_module(name: str) -> Any:
        raise errors.pop(0)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert "which is not installed: pip install" in str(gpu.problem())
    gpu.problem.cache_clear()
    assert "does not load (libnvrtc.so.13: cannot open)" in str(gpu.problem())
    gpu.problem.cache_clear()
    assert "does not load (no place)" in str(gpu.problem())


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (12080, r"made for CUDA 13, and this machine's driver knows CUDA 12: .*paratrain\[cuda12\]"),
        (11080, "driver knows CUDA 11: update the driver$"),
        (0, "CUDA finds no GPU .*insufficient"),
    ],
)
def test_a_driver_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, driver: int, said: str) -> None:
    def refuse() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")

    runtime = SimpleNamespace(getDeviceCount=refuse, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: 13020)
    cupy = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False, runtime=runtime))
    monkeypatch.setattr(importlib, "import_module", lambda name: cupy)
    assert re.search(said, str(gpu.problem()))


def test_cupy_has_a_place_for_kernels_where_it_cannot_write_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    new, impossible = str(tmp_path / "new" / "folder"), str(tmp_path / "file" / "folder")
    monkeypatch.setenv("CUPY_CACHE_DIR", new)
    gpu.library()
    assert os.environ["CUPY_CACHE_DIR"] == new and not Path(new).exists()
    for given in (impossible, ""):
        monkeypatch.setenv("CUPY_CACHE_DIR", given)
        gpu.library.cache_clear()
        gpu.library()
        assert Path(os.environ["CUPY_CACHE_DIR"]).parent == tmp_path and Path(os.environ["CUPY_CACHE_DIR"]).is_dir()


def test_links_are_tested_by_the_same_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of that test met CuPy's errors by themselves, and took no other folder for kernels."""

    def fail(name: str) -> Any:
        raise PermissionError("no place")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingDependencyError, match=r"cupy, which is installed but does not load \(no place\)"):
        CupyRuntime()

"""Where cuDNN and its front end are looked for, which of them can be used, and on which GPUs. On the simulated GPU."""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.cudnn import library
from paratrain.errors import BackendError


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("__version__", "1.32.0", r"nvidia-cudnn-frontend 1\.32\.0 .*'nvidia-cudnn-frontend>=1\.23,<1\.27'"),
        ("__version__", "1.9.1", r"nvidia-cudnn-frontend 1\.9\.1 is not known"),
        ("backend_version", lambda: 8907, "cuDNN 8907 is older than 9.0"),
        ("backend_version", None, "is not found"),
    ],
)
def test_versions_that_are_not_known(
    simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, reason: str
) -> None:
    import cudnn

    def missing() -> int:
        raise RuntimeError("Unable to find symbol cudnnGetVersion")

    monkeypatch.setattr(cudnn, name, value or missing)
    assert re.search(reason, library.problem.__wrapped__() or "")


@pytest.mark.parametrize("error", [OSError("wrong ELF class"), AssertionError("Found 2 libcudnn.dll.x")])
def test_a_front_end_that_does_not_load(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> None:
        raise error

    library.library.cache_clear()
    monkeypatch.setattr(importlib, "import_module", fail)
    found = library.problem.__wrapped__()
    assert found == f"cuDNN's library (libcudnn.so.9) cannot be loaded: {error}"


def test_a_front_end_that_is_there_and_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cudnn.py").write_text("raise ImportError('undefined symbol: PyObject_New')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cudnn", raising=False)
    library.library.cache_clear()
    found = library.problem.__wrapped__() or ""
    assert "is installed but does not load (undefined symbol: PyObject_New)" in found


def test_torch_is_not_loaded_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end imports it where it is installed, and would fail where it cannot be loaded."""
    (tmp_path / "cudnn.py").write_text("try:\n    import torch\nexcept ImportError:\n    torch = None\n")
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "cudnn", None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    del sys.modules["cudnn"]
    assert library.library.__wrapped__().torch is None
    assert "torch" not in sys.modules


def test_a_library_beside_the_users_packages_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end looks in the interpreter's own packages and where the loader looks, but not there."""
    from cuda import pathfinder

    def refuse(name: str) -> None:
        raise OSError(name)

    asked: list[str] = []
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", asked.append)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: "/nowhere")
    library._find_for_front_end()
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    library._find_for_front_end()
    assert asked[-1] == "cudnn"


def test_precisions_that_a_gpu_lacks(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = simulated_gpu.cuda.runtime
    properties = runtime.getDeviceProperties(0) | {"major": 7, "minor": 5}
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda device: properties)
    for precision in ("tf32", "bfloat16"):
        with pytest.raises(
            BackendError, match=rf"GPU 0 \(.*\): {precision} needs .* 8.0 .* this one's is 7.5: float32"
        ):
            CupyBackend(precision)
    CupyBackend("float16")


def test_no_gpu_no_cudnn(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import cudnn

    def refuse() -> int:
        raise RuntimeError("cudnnHandle Create failed")

    monkeypatch.setattr(cudnn, "create_handle", refuse)
    assert CupyBackend().cudnn is None

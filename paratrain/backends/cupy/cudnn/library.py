"""The door to cuDNN: the only module that imports its front end, and why it cannot be used where it cannot."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paratrain.errors import MissingDependencyError

__all__ = ["UnsupportedError", "data_type", "failures", "library", "problem", "version"]

_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF", "bfloat16": "BFLOAT16"}
_LIBRARY = "libcudnn.so.9"
_OLDEST, _FIRST_UNKNOWN = (1, 23), (1, 27)
"""Versions of the front end. 1.27 and 1.28 are untried; later ones make handles and graphs another way."""


class UnsupportedError(Exception):
    """cuDNN has no kernel for what is asked; whoever asks computes another way."""


@functools.cache
def library() -> Any:
    """Return the module ``cudnn``. It can be imported where cuDNN itself is missing. Raises MissingDependencyError."""
    _find_for_front_end()
    try:
        with _hidden("torch"):  # the front end loads it where it is installed: seconds, and CUDA libraries of its own
            return importlib.import_module("cudnn")
    except ImportError as error:
        problem = "" if isinstance(error, ModuleNotFoundError) and error.name == "cudnn" else str(error)
        raise MissingDependencyError("nvidia-cudnn-frontend", "convolutions by cuDNN", "cuda13", problem) from None


@functools.cache
def problem() -> str | None:
    """Why cuDNN cannot be used on this machine; None where it can. A GPU is not asked for."""
    try:
        cudnn = library()
    except MissingDependencyError as error:
        return str(error)
    except (OSError, AssertionError) as error:  # a library that does not load, or several of them in one folder
        return f"cuDNN's library ({_LIBRARY}) cannot be loaded: {error}"
    found = str(getattr(cudnn, "__version__", "0"))
    if not _OLDEST <= _numbers(found) < _FIRST_UNKNOWN:
        wanted = f">={'.'.join(map(str, _OLDEST))},<{'.'.join(map(str, _FIRST_UNKNOWN))}"
        return f"nvidia-cudnn-frontend {found} is not known here; pip install 'nvidia-cudnn-frontend{wanted}' brings one that is"
    try:
        number = cudnn.backend_version()
    except RuntimeError:
        return f"cuDNN's library ({_LIBRARY}) is not found; pip install 'paratrain[cuda13]' brings it"
    if number < 90000:
        return f"cuDNN {number} is older than 9.0; pip install 'paratrain[cuda13]' brings a newer one"
    return None


def version() -> str:
    """The version of cuDNN: ``9.28.0``."""
    return str(library().backend_version_string())


def failures() -> tuple[type[Exception], ...]:
    """What the front end raises, by what has gone wrong: ValueError for tensors and arrays that do not fit."""
    return library().cudnnGraphNotSupportedError, RuntimeError, ValueError


def data_type(name: str) -> Any:
    """Return cuDNN's own name of the dtype called ``name``."""
    return getattr(library().data_type, _TYPES[name])


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let nobody import a module that is not imported yet."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what Python takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[name]


def _find_for_front_end() -> None:
    """Load cuDNN where the front end would not find it: it looks beside itself in the interpreter's own packages, and where the
    loader does, but not in those of the user (``pip install --user``), nor where CUDNN_PATH points.
    """
    if any(Path(sysconfig.get_path("purelib"), "nvidia/cudnn/lib").glob("libcudnn.so*")):
        return
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        with contextlib.suppress(ImportError, OSError, RuntimeError, ValueError):  # not installed, or it finds none
            importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cudnn")


def _numbers(version: str) -> tuple[int, ...]:
    """``1.26.0`` as (1, 26)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])

"""The door to cuDNN: the only module that imports its front end, and why it cannot be used where it cannot."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from paratrain.errors import MissingDependencyError

__all__ = ["UnsupportedError", "data_type", "library", "problem", "version"]

_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF", "bfloat16": "BFLOAT16"}


class UnsupportedError(Exception):
    """cuDNN has no kernel for what is asked; whoever asks computes another way."""


@functools.cache
def library() -> Any:
    """Return the module ``cudnn``. It can be imported where cuDNN itself is missing. Raises MissingDependencyError."""
    try:
        return importlib.import_module("cudnn")
    except ImportError:
        raise MissingDependencyError("nvidia-cudnn-frontend", "convolutions by cuDNN", "cuda13") from None


@functools.cache
def problem() -> str | None:
    """Why cuDNN cannot be used on this machine; None where it can. A GPU is not asked for."""
    try:
        cudnn = library()
    except MissingDependencyError as error:
        return str(error)
    try:
        number = cudnn.backend_version()
    except RuntimeError:
        return "cuDNN's library (libcudnn.so.9) is not found; pip install 'paratrain[cuda13]' brings it"
    if number < 90000:
        return f"cuDNN {number} is older than 9.0; pip install 'paratrain[cuda13]' brings a newer one"
    return None


def version() -> str:
    """The version of cuDNN: ``9.28.0``."""
    return str(library().backend_version_string())


def data_type(name: str) -> Any:
    """Return cuDNN's own name of the dtype called ``name``."""
    return getattr(library().data_type, _TYPES[name])

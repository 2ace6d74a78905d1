"""Skipping what needs a library that only an extra installs."""

from __future__ import annotations

import pytest

from paratrain.backends import BACKENDS
from paratrain.backends.onednn.library import load
from paratrain.data.images import load_opencv
from paratrain.data.leveldb import load_plyvel
from paratrain.errors import MissingDependencyError

__all__ = ["need_backend", "need_bfloat16", "need_leveldb", "need_onednn", "need_opencv"]


def need_leveldb() -> None:
    """Skip the test without plyvel or plyvel-next."""
    try:
        load_plyvel()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def need_opencv() -> None:
    """Skip the test without OpenCV."""
    try:
        load_opencv()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def need_backend(name: str) -> None:
    """Skip the test where the backend cannot be used."""
    problem = BACKENDS.get(name).problem()
    if problem is not None:
        pytest.skip(problem)


def need_bfloat16() -> None:
    """Skip the test where oneDNN, or the processor, has no products of bfloat16."""
    need_onednn()
    if not load().has_bfloat16:
        pytest.skip(f"the processor has no products of bfloat16 ({load().instruction_set})")


def need_onednn() -> None:
    """Skip the test where oneDNN cannot be loaded."""
    need_backend("onednn")

"""Skipping what needs a library that only an extra installs."""

from __future__ import annotations

import pytest

from paratrain.data.images import load_opencv
from paratrain.data.leveldb import load_plyvel
from paratrain.errors import MissingDependencyError

__all__ = ["need_leveldb", "need_opencv"]


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

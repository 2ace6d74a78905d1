"""The stand-in for cuDNN's front end, for tests that change or expect what only it does."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.simulated_gpu_path import IS_REAL

__all__ = ["stand_in_cudnn"]


def stand_in_cudnn() -> Any:
    """Return the module ``cudnn``; the test is skipped where that is the real one."""
    if IS_REAL:
        pytest.skip("looks into the stand-in for cuDNN, and this one is real")
    return importlib.import_module("cudnn")

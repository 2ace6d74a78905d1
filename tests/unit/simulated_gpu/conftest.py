"""All tests of this folder run on the simulated GPU, and are about it."""

from __future__ import annotations

import pytest

from tests.simulated_gpu_path import (
    IS_REAL,
    simulated_gpu,  # noqa: F401
)


@pytest.fixture(autouse=True)
def _is_simulated() -> None:
    if IS_REAL:
        pytest.skip("is about the simulated GPU")

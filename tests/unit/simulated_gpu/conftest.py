"""All tests of this folder run on the simulated GPU, and are about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulated_gpu_path import (
    IS_REAL,
    simulated_gpu,  # noqa: F401
)


@pytest.fixture(autouse=True)
def _is_simulated(simulated_gpu: Any) -> Iterator[None]:  # noqa: F811
    if IS_REAL:
        pytest.skip("is about the simulated GPU")
    with simulated_gpu.cuda.Stream.null:  # a backend of an earlier test has left its own
        yield

"""A plugin of pytest for workers of pytest-xdist: one that can no longer use the GPU ends, and a new one goes on.

python -m pytest -n 4 -p gpu_lost ...
"""

from __future__ import annotations

import os

import pytest
from gpu_findings import LOST, gpu_is_lost

_has_failed = False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _has_failed
    _has_failed = _has_failed or report.failed


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    """Behind each test, when it has been reported."""
    global _has_failed
    if _has_failed and "PYTEST_XDIST_WORKER" in os.environ and gpu_is_lost():
        os._exit(LOST)
    _has_failed = False

"""cuDNN itself, where it is installed, builds the plans of a small net for a GPU that is not there."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

import pytest

from tests.paths import REPOSITORY


@pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None, reason="needs nvidia-cudnn-cu13 and its front end (1 GB)"
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_all_plans_of_lenet_can_be_built() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts/gpu/check_plans"), "--nets", "lenet"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=110)
    if found.returncode == 2:
        pytest.skip(found.stderr)
    assert found.returncode == 0, found.stdout + found.stderr
    rows = [line.split("|") for line in found.stdout.splitlines() if line.startswith("| lenet")]
    assert len(rows) == 5 and all(int(row[3]) >= 5 and int(row[6]) == 0 for row in rows)
    assert all(row[3] == row[5] for row in rows if row[2].strip() in ("tf32", "bfloat16", "float16")), "on tensor cores"

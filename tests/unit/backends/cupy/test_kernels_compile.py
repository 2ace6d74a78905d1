"""Every kernel compiles for the GPUs of three generations, without a word from the compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paratrain.backends.cupy.modules import STORAGE_NAMES
from tests.paths import REPOSITORY
from tests.unit.backends.cupy.compile_kernels import UNAVAILABLE


@pytest.mark.timeout(400)
@pytest.mark.parametrize("dtype", STORAGE_NAMES)
def test_nvrtc_accepts_every_kernel(dtype: str) -> None:
    architectures = ["80", "90", "100"] if dtype == "float32" else ["90"]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compile_kernels.py")), dtype, *architectures],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},  # without the stand-in for CuPy
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(f"needs cupy-cuda13x, nvidia-cuda-nvrtc and nvidia-cuda-runtime: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout.splitlines()[-1])
    assert not failures, "\n".join(failures)

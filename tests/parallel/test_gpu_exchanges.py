"""Real processes that share simulated GPUs: memory opened through CUDA's handles, the adding kernel, and the exchanges."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.simulated_gpu_path import environment


@pytest.mark.parametrize("gpu_count", [1, 2])
def test_sums_between_processes(mpirun: str, gpu_count: int) -> None:
    if shutil.which("g++") is None:
        pytest.skip("the simulated GPU compiles kernels by g++, which is not here")
    if not (REPOSITORY / "scripts/gpu/check_exchange").is_file():
        pytest.skip("no checkout around these tests")
    command = [mpirun, "-n", "2", sys.executable, str(Path(__file__).with_name("gpu_exchanges.py")), str(gpu_count)]
    done = subprocess.run(command, env=environment(gpu_count), capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory was freed that another process has open" not in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["is_right"], done.stdout
    assert found["gpu"] == [f"GPU 0 (0000:{16 * (rank % gpu_count) + 27:X}:00.0)" for rank in range(2)]
    assert [(row["exchange"], row["through"]) for row in found["exchanges"]] == [
        ("sharded", "GPU memory"),
        ("tree", "GPU memory"),
        ("sharded", "host"),
        ("tree", "host"),
        ("ring", "host"),
    ]

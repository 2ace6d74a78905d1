"""How many threads a net computes with that a script makes without a solver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paratrain.topology.cores import divide, local_core_place
from tests.paths import REPOSITORY

ASK = """
import multiprocessing
import paratrain as caffe
from paratrain.threads import wanted_thread_count

def make(_=None):
    caffe.Net("net.prototxt", caffe.TEST)
    return wanted_thread_count()

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(*pool.map(make, [0]), make())
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, "None"),  # with others: until a solver knows them
    ],
)
def test_a_net_alone_computes_with_all_cores(folder: Path, variables: dict[str, str], expected: object) -> None:
    cores = divide([local_core_place()], 0).thread_count
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")} | variables
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK], cwd=folder, env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # A process that the script has started is one of several, and leaves it at one thread.
    assert done.stdout.split() == ["None", str(cores if expected is None else expected)], done.stderr

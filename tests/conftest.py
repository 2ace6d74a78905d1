"""What all tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Before numpy is loaded: several ranks and tests share the cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import hypothesis
import pytest

from tests.paths import DATA, GOLDEN, REPOSITORY

# pytest-timeout ends what hangs; a single slow example on a busy machine is no failure.
hypothesis.settings.register_profile("default-without-deadline", deadline=None)
hypothesis.settings.load_profile("default-without-deadline")


@pytest.fixture(autouse=True)
def nothing_chosen() -> Iterator[None]:
    """What a test chooses by ``set_mode_cpu`` and its like is forgotten when it ends."""
    yield
    ranks = sys.modules.get("paratrain.pycaffe.ranks")
    if ranks is not None:
        vars(ranks.choices).update(vars(ranks.Choices()))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of values computed by BVLC Caffe."""
    return GOLDEN


@pytest.fixture(scope="session")
def mnist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the databases of the recorded training runs: mnist_train_lmdb and mnist_test_lmdb."""
    from paratrain.tools.mnist import write_database

    folder = tmp_path_factory.mktemp("mnist")
    files = DATA / "t10k-images-idx3-ubyte.gz", DATA / "t10k-labels-idx1-ubyte.gz"
    write_database(*files, folder / "mnist_train_lmdb", 0, 8000)
    write_database(*files, folder / "mnist_test_lmdb", 8000, 10000)
    return folder


@pytest.fixture(scope="session")
def mpirun() -> str:
    """The `mpirun` of this Python's environment, else the one on PATH."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        pytest.skip("no mpirun: pip install 'paratrain[mpi]'")
    return found

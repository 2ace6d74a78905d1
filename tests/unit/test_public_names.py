"""What ``import paratrain`` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import paratrain


@pytest.mark.parametrize("name", paratrain.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(paratrain, name)
    assert isinstance(value, int) or value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchThing'"):
        _ = paratrain.NoSuchThing


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = {"numpy", "mpi4py", "lmdb", "cupy", "pynvml", "h5py", "cv2", "matplotlib", "google.protobuf"}
    program = f"import paratrain, sys; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_training_on_one_rank_needs_no_mpi(tmp_path: object) -> None:
    program = """
import sys
class NoMpi:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mpi4py":
            raise ImportError("no MPI on this machine")
sys.meta_path.insert(0, NoMpi())
import paratrain as caffe
assert caffe.solver_count() == 1 and caffe.root_solver()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

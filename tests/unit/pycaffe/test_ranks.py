"""What a script says of processes of its own, and NCCL; processes that train together are in tests/integration."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import paratrain as caffe
from paratrain.errors import SolverError
from paratrain.pycaffe import ranks

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the beginning of a script: nobody has asked for the ranks, and nothing is known of a place to meet."""
    monkeypatch.setattr(ranks, "world", ranks.functools.cache(ranks.world.__wrapped__))
    monkeypatch.setenv("PARATRAIN_MEETING_PLACE", "")
    monkeypatch.delenv("PARATRAIN_MEETING_PLACE")


def test_alone() -> None:
    assert (caffe.solver_rank(), caffe.solver_count(), caffe.root_solver()) == (0, 1, True)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(True)
    solver = caffe.SGDSolver("solver.prototxt")
    uid = caffe.NCCL.new_uid()
    try:
        nccl = caffe.NCCL(solver, uid)
        nccl.bcast()
        solver.add_callback(nccl)
        solver.net.after_backward(nccl)
        assert not solver.net.layer_callbacks
        solver.net.blobs["data"].data[...] = 1
        before = solver.net.params["ip"][0].data.copy()
        solver.step(2)
        assert (solver.net.params["ip"][0].data != before).any()
    finally:
        Path(uid).rmdir()
        os.environ.pop("PARATRAIN_MEETING_PLACE")
    assert caffe.has_nccl()
    with pytest.raises(TypeError, match="is no solver"):
        caffe.NCCL(solver.net, uid)


def test_numbers_that_contradict_themselves() -> None:
    caffe.solver_count()
    with pytest.raises(
        SolverError, match=r"set_solver_count\(2\): call it before the first solver is made.*rank 0 of 1"
    ):
        caffe.set_solver_count(2)
    with pytest.raises(SolverError, match=r"set_solver_rank\(1\): call it before"):
        caffe.set_solver_rank(1)
    with pytest.raises(SolverError, match="at least one process trains"):
        caffe.set_solver_count(0)
    with pytest.raises(SolverError, match="counted from 0"):
        caffe.set_solver_rank(-1)


@pytest.mark.usefixtures("fresh")
def test_processes_that_do_not_know_each_other() -> None:
    caffe.set_solver_count(2)
    assert caffe.solver_count() == 2
    with pytest.raises(
        SolverError, match=r"set_solver_rank\(...\) must give this process a number from 0 to 1; none is"
    ):
        caffe.SGDSolver("solver.prototxt")
    caffe.set_solver_rank(2)
    with pytest.raises(SolverError, match="from 0 to 1; it is 2"):
        caffe.SGDSolver("solver.prototxt")
    caffe.set_solver_rank(1)
    assert caffe.solver_rank() == 1
    assert not caffe.root_solver()
    with pytest.raises(SolverError, match=r"Call uid = NCCL.new_uid\(\).*mpirun -n 2 python SCRIPT"):
        caffe.SGDSolver("solver.prototxt")


@pytest.mark.usefixtures("fresh")
def test_under_mpirun_the_launcher_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PMI_SIZE", "2"), ("PMI_RANK", "1"), ("MPI_LOCALNRANKS", "2"), ("MPI_LOCALRANKID", "1")):
        monkeypatch.setenv(name, value)
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    assert caffe.NCCL.new_uid() == "mpi"
    with pytest.raises(SolverError, match=r"set_solver_count\(4\): the launcher says 2. Under mpirun every rank is"):
        caffe.set_solver_count(4)
    with pytest.raises(SolverError, match=r"set_solver_rank\(0\): the launcher says 1"):
        caffe.set_solver_rank(0)
    monkeypatch.setattr(ranks.multiprocessing, "parent_process", lambda: "somebody")
    with pytest.raises(SolverError, match="the launcher knows another process as this rank"):
        caffe.set_solver_rank(1)


def test_a_uid_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    monkeypatch.setattr(solver, "size", 2)
    with pytest.raises(SolverError, match="uid 'other' is not the one by which these 2 processes have met"):
        caffe.NCCL(solver, "other")
    with pytest.raises(SolverError, match="2 ranks train together: use step"):
        solver.apply_update()
    assert np.isfinite(solver.net.params["ip"][0].data).all()

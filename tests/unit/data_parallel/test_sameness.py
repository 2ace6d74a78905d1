"""A value that is spoilt on one rank is found and named; ranks that are the same train on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paratrain.blob import SyncedMemory
from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data import LmdbWriter
from paratrain.data_parallel import create_parallel_solver
from paratrain.data_parallel.sameness import SamenessCheck
from paratrain.errors import RanksDifferError
from paratrain.proto import Datum, SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from tests.unit.data_parallel.thread_sums import give_threads_sums

NET = """
layer {{ name: "records" type: "Data" top: "x" top: "y" transform_param {{ scale: 0.004 }}
  data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }}
layer {{ name: "frozen" type: "Scale" bottom: "norm" top: "norm" param {{ lr_mult: 0 }} scale_param {{ filler {{ value: 1 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "norm" top: "ip" inner_product_param {{ num_output: 120
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "ip" top: "score" inner_product_param {{ num_output: 3
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "y" top: "loss" }}
"""
EXCHANGES = ("tree", "sharded", "ring", "mpi")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "lmdb"
    rng = np.random.default_rng(5)
    with LmdbWriter(path) as writer:
        for index in range(48):
            datum = Datum(channels=1, height=6, width=6, label=int(rng.integers(3)), data=rng.bytes(36))
            writer.put(b"%08d" % index, datum.SerializeToString())
    return path


def make(
    source: Path, communicator: Communicator, exchange: str, *, settings: str = "", batch_norm: str = "root"
) -> Solver:
    text = f'type: "SGD" momentum: 0.9 base_lr: 0.01 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false {settings}'
    parameter = parse_prototxt(f"{text} net_param {{ {NET.format(source=source)} }}", SolverParameter)
    return create_parallel_solver(parameter, communicator, exchange=exchange, batch_norm=batch_norm)


def reports(source: Path, exchange: str, spoil: Callable[[Solver, int], object], nodes: list[int]) -> list[str]:
    """What each rank says after a step, in which ``spoil`` is called between the update and the check."""

    def main(communicator: Communicator) -> str:
        solver = make(source, communicator, exchange)
        solver.after_update.append(lambda: spoil(solver, communicator.rank))
        SamenessCheck(solver, communicator, 2)
        solver.step(1)
        with pytest.raises(RanksDifferError) as found:
            solver.step(1)
        communicator.barrier()
        solver.close()
        return str(found.value)

    return run_threads(len(nodes), main, nodes)


@pytest.mark.parametrize("nodes", [[0, 0, 0], [0, 1, 1]])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_ranks_that_are_the_same_train_on(
    source: Path, exchange: str, nodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_threads_sums(monkeypatch)
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 3000)

    def main(communicator: Communicator) -> list[int]:
        tests = f"test_iter: 1 test_interval: 7 test_net_param {{ {NET.format(source=source)} }}"
        solver = make(source, communicator, exchange, settings=tests)
        SamenessCheck(solver, communicator, 3)
        checked: list[int] = []
        solver.activity.add_listener(lambda phase, _: checked.append(solver.iter) if phase == "verify" else None)
        solver.step(20)
        communicator.barrier()
        solver.close()
        return checked

    assert run_threads(len(nodes), main, nodes) == [[3, 6, 9, 12, 15, 18]] * len(nodes)


@pytest.mark.parametrize(
    ("exchange", "nodes", "same", "other"),
    [
        ("tree", [0, 1, 2, 2], "ranks 0 and 1", "ranks 2 and 3"),  # the ranks of a node have them in the same memory
        ("sharded", [0, 1, 2, 3], "ranks 0, 1 and 3", "rank 2"),
        ("ring", [0, 1, 2, 2], "ranks 0 and 1", "ranks 2 and 3"),
    ],
)
def test_one_bit_of_one_value_is_found_on_every_rank(
    source: Path, exchange: str, nodes: list[int], same: str, other: str
) -> None:
    """The lowest bit, of a value after the first piece that is looked at; a later blob differs, too."""
    place = (70, 5)

    def spoil(solver: Solver, rank: int) -> None:
        if rank == 2 and solver.iter == 2:
            bits = solver.net.params["ip"][0].write_data(None).view(np.uint32)
            bits[place] ^= 1
            solver.net.params["score"][1].write_data(None)[1] += 1

    found = reports(source, exchange, spoil, nodes)
    assert len(set(found)) == 1
    index = np.ravel_multi_index(place, (120, 64))
    assert index > 4096
    assert found[0].startswith(
        "after 2 iterations the ranks are not the same: parameter ip[0] (layer 'ip', blob 0) is the first that differs, of 2 of "
        f"7 blobs (also score[1]); its first value that does is {index}, at [70, 5] of (120, 64): "
    )
    assert f" on {same}; " in found[0]
    assert f" on {other}. Training stops here" in found[0]
    values = re.findall(r"(\S+) on ranks? ", found[0])
    assert len(values) == 2
    assert 0 < abs(np.float32(values[0]) - np.float32(values[1])) < 1e-7


def test_a_frozen_parameter_is_compared_even_where_the_others_are_in_the_same_memory(source: Path) -> None:
    def spoil(solver: Solver, rank: int) -> None:
        if rank == 1:  # a layer of this rank has left the memory that all use
            blob = solver.net.params["frozen"][0]
            blob.use_memory(data=SyncedMemory(blob.count, np.float32), diff=None)

    [first, second] = reports(source, "sharded", spoil, [0, 0])
    assert first == second
    assert (
        "parameter frozen[0] (layer 'frozen', blob 0) is the first that differs; its first value that does is 0"
        in first
    )
    assert "1 on rank 0; 0 on rank 1. " in first


@pytest.mark.parametrize("mode", ["average", "sync"])
def test_statistics_are_compared_where_all_ranks_have_the_same(source: Path, mode: str) -> None:
    def main(communicator: Communicator) -> str:
        solver = make(source, communicator, "tree", batch_norm=mode)
        check = SamenessCheck(solver, communicator, 1)
        solver.step(3)
        if communicator.rank == 1:
            solver.net.params["norm"][1].write_data(None)[2] = 7
        with pytest.raises(RanksDifferError) as found:
            check.check()
        communicator.barrier()
        solver.close()
        return str(found.value)

    found = run_threads(2, main)
    assert (
        "statistic norm[1] (layer 'norm', blob 1) is the first that differs; its first value that does is 2, "
        in found[0]
    )
    assert "7 on rank 1. " in found[0]


def test_a_rank_that_is_elsewhere_in_the_run_is_named(source: Path) -> None:
    def spoil(solver: Solver, rank: int) -> None:
        solver.parameter.base_lr = 0.5 if rank == 1 else 0.25

    assert (
        "the ranks are not the same: the learning rate is 0.25 on rank 0; 0.5 on rank 1"
        in reports(source, "tree", spoil, [0, 0])[0]
    )

"""What an exchange takes out of a node and into it in a step: the least there is, whatever the count of its ranks."""

from __future__ import annotations

import functools
from collections import Counter

import pytest

from paratrain.comm import Communicator
from paratrain.comm.communicator import Array, Request
from paratrain.comm.threads import ThreadCommunicator, run_threads
from paratrain.data_parallel import create_parallel_solver
from paratrain.proto import SolverParameter, parse_prototxt

NET = """
layer { name: "noise" type: "DummyData" top: "x" top: "y"
  dummy_data_param { shape { dim: 2 dim: 100 } shape { dim: 2 } data_filler { type: "gaussian" }
    data_filler { type: "constant" } } }
layer { name: "one" type: "InnerProduct" bottom: "x" top: "one" inner_product_param { num_output: 100
  weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "one" top: "one" }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two" inner_product_param { num_output: 200
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "two" bottom: "y" top: "loss" }
"""
PARAMETER_BYTES = 4 * (101 * 100 + 101 * 200)
STATISTICS_BYTES = 4 * (2 * 100 + 1)
PLACES = [[0, 0, 1, 1], [0, 1, 1], [0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Bytes that have gone from node to node."""
    counted: Counter[tuple[int, int]] = Counter()
    isend = ThreadCommunicator.isend

    def count(self: ThreadCommunicator, array: Array, destination: int, tag: int = 0) -> Request:
        nodes = self.node_of_rank
        with self._group.changed:
            counted[nodes[self.rank], nodes[destination]] += array.nbytes
        return isend(self, array, destination, tag)

    monkeypatch.setattr(ThreadCommunicator, "isend", count)
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 5000)
    return counted


def bytes_of_a_step(exchange: str, nodes: list[int], counted: Counter[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """What goes from node to node in each of four steps: a run of six less one of two, so that what begins a run cancels."""
    settings = 'base_lr: 0.01 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false'
    parameter = parse_prototxt(f"{settings} net_param {{ {NET} }}", SolverParameter)

    def main(communicator: Communicator, steps: int) -> None:
        solver = create_parallel_solver(parameter, communicator, exchange=exchange)
        solver.step(steps)
        communicator.barrier()
        solver.close()

    runs = []
    for steps in (2, 6):
        counted.clear()
        run_threads(len(nodes), functools.partial(main, steps=steps), nodes)
        runs.append(counted.copy())
    return Counter({way: (runs[1][way] - runs[0][way]) // 4 for way in runs[1] if way[0] != way[1]})


@pytest.mark.parametrize("nodes", PLACES)
@pytest.mark.parametrize("exchange", ["tree", "sharded", "ring"])
def test_a_node_sends_and_receives_no_more_than_it_must(
    exchange: str, nodes: list[int], sent: Counter[tuple[int, int]]
) -> None:
    step = bytes_of_a_step(exchange, nodes, sent)
    count = len(set(nodes))
    for node in range(count):
        leaves = sum(step[node, other] for other in range(count))
        arrives = sum(step[other, node] for other in range(count))
        # The root's node has as many neighbours in a tree of three; the other exchanges give all nodes an equal share.
        share = (2 if node == 0 else 1) if exchange == "tree" and count == 3 else 2 * (count - 1) / count
        for found in (leaves, arrives):
            extra = found - share * PARAMETER_BYTES
            assert -500 <= extra <= count * STATISTICS_BYTES + 2000, (node, found / PARAMETER_BYTES)

"""The exchange that is predicted to be the fastest: one choice for all ranks, among those that they can train with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.comm import Communicator
from paratrain.comm.choose import AUTO, EXCHANGES
from paratrain.comm.threads import ThreadCommunicator, run_threads
from paratrain.data_parallel import DataParallel, create_parallel_solver
from paratrain.data_parallel.automatic import (
    Choice,
    choose_exchange,
    cluster_of_ranks,
    node_of_figures,
    possible_exchanges,
)
from paratrain.errors import LayerError, OtherRankFailedError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from paratrain.topology.costs.training_step import StepPrediction, StepWork, predict_step
from paratrain.topology.hosts import RankPlace
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planner import plan_ranks

SOLVER = """
base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 3 snapshot_after_train: false {settings}
net_param {{
  layer {{ name: "x" type: "DummyData" top: "x"
    dummy_data_param {{ shape {{ dim: 4 dim: 30 }} data_filler {{ type: "gaussian" }} }} }}
  layer {{ name: "y" type: "DummyData" top: "y" dummy_data_param {{ shape {{ dim: 4 dim: 8 }} }} }}
  layer {{ name: "ip" type: "{layer}" bottom: "x" top: "ip"
    inner_product_param {{ num_output: 8 weight_filler {{ type: "xavier" }} }} }}
  layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }}
}}"""
BYTES = (30 * 8 + 8) * 4
SLOW = LinkFigure(1e6, 0.0, origin="measured")


def make(communicator: Communicator, exchange: str = AUTO, settings: str = "", **options: Any) -> Solver:
    parameter = parse_prototxt(SOLVER.format(settings=settings, layer="InnerProduct"), SolverParameter)
    return create_parallel_solver(parameter, communicator, exchange=exchange, **options)


def choice_of(solver: Solver) -> Choice:
    assert isinstance(solver.shares, DataParallel)
    assert solver.shares.choice is not None
    assert solver.times.predicted_step_s == solver.shares.choice.predicted_s
    return solver.shares.choice


def choices(nodes: list[int], exchange: str = AUTO, settings: str = "", **options: Any) -> list[tuple[Choice, str]]:
    """For each rank how the exchange was chosen, and what it trains with."""

    def main(communicator: Communicator) -> tuple[Choice, str]:
        solver = make(communicator, exchange, settings, **options)
        solver.step(1)
        communicator.barrier()
        found = choice_of(solver), solver.shares.description  # type: ignore[attr-defined]
        solver.close()
        return found

    return run_threads(len(nodes), main, nodes)


@pytest.mark.parametrize("nodes", [[0, 0], [0, 0, 0], [0, 1, 0, 1], [0, 1]])
def test_all_ranks_take_the_fastest(nodes: list[int]) -> None:
    found = choices(nodes)
    choice, description = found[0]
    assert all(other == found[0] for other in found)
    assert choice.is_automatic
    assert description.startswith(f"{choice.name}, ")
    assert {one.exchange for one in choice.predictions} == {"tree", "sharded", "ring"}  # threads have no MPI
    times = [one.total_s for one in choice.predictions]
    assert times == sorted(times)
    assert choice.predicted_s == times[0]
    assert found == choices(nodes)  # and so again in the next run


def test_what_is_named_is_taken_and_predicted() -> None:
    for name in ("tree", "sharded", "ring"):
        choice, description = choices([0, 0], name)[0]
        assert (choice.name, choice.is_automatic, description.partition(",")[0]) == (name, False, name)
        [prediction] = choice.predictions
        assert prediction == predict_step(
            name, cluster_of_ranks([0, 0], [RankPlace()] * 2), plan_ranks([0, 0]), StepWork(BYTES, 1 << 20)
        )


@pytest.mark.parametrize(
    ("settings", "options", "reason"),
    [
        ("debug_info: true display: 1", {}, "debug_info shows the updates of one rank, the root"),
        ("", {"shares_parameters": False}, "parameters are each rank's own, and the root's count"),
    ],
)
def test_what_only_a_tree_can_do(settings: str, options: dict[str, Any], reason: str) -> None:
    for choice, description in choices([0, 0], AUTO, settings, **options):
        assert choice.name == "tree"
        assert description.startswith("tree, by messages" if options else "tree, through shared memory")
        assert choice.describe().endswith(f" a step, update included; {reason}")


def test_mpi_is_compared_only_where_ranks_are_joined_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(communicator: Communicator) -> tuple[str, ...]:
        return possible_exchanges(communicator)[0]

    assert "mpi" not in run_threads(2, names)[0]
    monkeypatch.setattr(ThreadCommunicator, "has_own_sums", True)
    assert run_threads(2, names)[0] == EXCHANGES


def test_figures_that_rank_0_knows_decide_for_all() -> None:
    """Memory that is slow to read in place makes messages the faster way."""
    machine = Machine(cpu_ranks=(CpuRank(0), CpuRank(1)), measured={(0, 1): SLOW})
    tree = plan_ranks([0, 0])

    def main(communicator: Communicator) -> str:
        return choose_exchange(
            AUTO,
            possible_exchanges(communicator)[0],
            communicator,
            tree,
            lambda _: StepWork(10**8, 1 << 20),
            machine=machine if communicator.rank == 0 else None,
        ).name

    assert run_threads(2, main) == ["ring", "ring"]


def test_without_memory_to_share_messages_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.comm.memory.share", lambda *_: "there is none")
    for choice, description in choices([0, 0]):
        assert "by messages (there is none)" in description
        for one in choice.predictions:
            work = StepWork(BYTES, 1 << 20)
            places = cluster_of_ranks([0, 0], [RankPlace()] * 2)
            assert one == predict_step(one.exchange, places, plan_ranks([0, 0]), work, shares_memory=False)


def test_the_automatic_exchange_gives_the_bits_of_the_one_it_takes() -> None:
    def main(communicator: Communicator, exchange: str) -> npt.NDArray[Any]:
        solver = make(communicator, exchange)
        solver.step(3)
        values: npt.NDArray[Any] = solver.net.parameters.data.host().copy()
        communicator.barrier()
        solver.close()
        return values

    name = choices([0, 0, 0])[0][0].name
    expected, found = (run_threads(3, lambda ranks, way=way: main(ranks, way)) for way in (name, AUTO))
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_one_rank_alone_predicts_nothing() -> None:
    [solver] = run_threads(1, make)
    assert solver.times.predicted_step_s is None
    assert "exchange_predicted_s" not in solver.times.figures()
    solver.close()


def test_the_prediction_is_for_as_many_steps_as_were_measured() -> None:
    def main(communicator: Communicator) -> tuple[float, float]:
        solver = make(communicator, settings="display: 0")
        solver.step(3)
        figures, predicted = solver.times.figures(), choice_of(solver).predictions[0]
        communicator.barrier()
        solver.close()
        assert figures["exchange_s"] > 0
        return figures["exchange_predicted_s"], predicted.total_s

    for predicted_s, each_s in run_threads(2, main):
        assert predicted_s == pytest.approx(3 * each_s)


def test_a_rank_that_cannot_make_its_solver_keeps_nobody_waiting() -> None:
    def main(communicator: Communicator) -> str:
        layer = "Unheard" if communicator.rank == 1 else "InnerProduct"
        parameter = parse_prototxt(SOLVER.format(settings="", layer=layer), SolverParameter)
        with pytest.raises((LayerError, OtherRankFailedError)) as caught:
            create_parallel_solver(parameter, communicator, exchange=AUTO)
        return type(caught.value).__name__

    assert run_threads(3, main) == ["OtherRankFailedError", "LayerError", "OtherRankFailedError"]


def test_the_line_of_the_log() -> None:
    predictions = (StepPrediction("sharded", 0.002, 0.001, 0.0001), StepPrediction("tree", 0.002, 0.001, 0.002))
    choice = Choice("sharded", predictions, is_automatic=True)
    assert choice.describe() == "sharded, predicted to take 3.1 ms a step, update included; tree 5 ms"
    assert Choice("nccl").describe() == "nccl"
    assert Choice("nccl").predicted_s is None


def test_the_ranks_of_a_run_as_a_cluster() -> None:
    places = [RankPlace(numa_nodes=(node,)) for node in (0, 0, 1, 1)]
    machine = Machine(cpu_ranks=(CpuRank(0), CpuRank(1)), measured={(0, 1): SLOW}, network=SLOW, network_cards=2)
    cluster = cluster_of_ranks([0, 1, 0, 1], places, machine)
    assert [[rank.numa_node for rank in node.cpu_ranks] for node in cluster.nodes] == [[0, 1], [0, 1]]
    assert all((node.measured, node.network_cards) == ({(0, 1): SLOW}, 2) for node in cluster.nodes)
    assert all(node.network == SLOW for node in cluster.nodes)
    other = cluster_of_ranks([0, 0, 0, 0], places, machine)  # of 4 ranks the file knows nothing but the network
    assert (other.nodes[0].measured, other.nodes[0].network) == ({}, SLOW)


def test_measured_links_follow_members_to_their_ranks() -> None:
    """The plan's member 5, its root, becomes rank 0."""
    fast = LinkFigure(9e9, 0.0, origin="measured")
    machine = Machine(cpu_ranks=tuple(map(CpuRank, (3, 4, 5))), measured={(3, 4): SLOW, (4, 5): fast})
    found = node_of_figures(machine, [2, 0, 1])
    assert found.indices == (0, 1, 2)
    assert found.measured == {(1, 2): SLOW, (0, 2): fast}

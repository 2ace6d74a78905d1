"""The predicted steps of GPUs: closed forms where links are all alike, and what is to be ranked before what."""

from __future__ import annotations

import pytest

from paratrain.topology.costs.cluster import Cluster
from paratrain.topology.costs.device_step import DEVICE_STEP_EXCHANGES, predict_device_step
from paratrain.topology.costs.training_step import StepPrediction, StepWork, predict_step
from paratrain.topology.known_machines import known_machine
from paratrain.topology.link_figures import LinkFigure, figures, slot_bytes_per_s
from paratrain.topology.machine import CpuRank, Gpu, Link, LinkClass, LinkKind, Machine
from paratrain.topology.planner import binomial

MEGABYTES = 10**6
DEVICE = figures()["device"]
SLICE_S = DEVICE["slice_us"] * 1e-6


def predicted(
    name: str, machine: Machine, byte_count: int, *, node_count: int = 1, slices: int = 1, directly: bool = True
) -> StepPrediction:
    size = len(machine.members)
    host = Machine(cpu_ranks=tuple(map(CpuRank, range(size))))
    return predict_device_step(
        name,
        Cluster.of(machine, node_count),
        Cluster.of(host, node_count),
        binomial(size * node_count),
        StepWork(byte_count, -(-byte_count // slices)),
        directly=directly,
    )


@pytest.fixture
def pair() -> Machine:
    """Two GPUs whose link carries 10 GB/s after a microsecond."""
    link = Link(0, 1, LinkClass(LinkKind.PIX), "OK", "OK")
    return Machine(gpus=(Gpu(0), Gpu(1)), links=(link,), measured={(0, 1): LinkFigure(1e10, 1e-6)})


def update_s(byte_count: float) -> float:
    return byte_count * 6 / (DEVICE["memory_gb_per_s"] * 1e9)


def test_two_gpus_read_halves_or_the_root_all(pair: Machine) -> None:
    size = 100 * MEGABYTES
    sharded, tree, nccl = (predicted(name, pair, size) for name in ("sharded", "tree", "nccl"))
    assert sharded.sum_s == pytest.approx(SLICE_S + 1e-6 + 50e6 / 1e10)
    assert sharded.spread_s == sharded.sum_s
    assert sharded.update_s == pytest.approx(update_s(size / 2))
    assert tree.sum_s == pytest.approx(SLICE_S + 1e-6 + 100e6 / 1e10)
    assert tree.update_s == pytest.approx(update_s(size))
    assert nccl.sum_s == pytest.approx(SLICE_S + DEVICE["nccl_call_us"] * 1e-6 + 1e-6 + 50e6 / 1e10)


def test_through_the_host_all_is_copied_and_then_as_on_cpus(pair: Machine) -> None:
    size, slot = 100 * MEGABYTES, slot_bytes_per_s(Gpu(0))
    host = Cluster.of(Machine(cpu_ranks=(CpuRank(0), CpuRank(1))), 1)
    work = StepWork(size, size)
    for name, owned in (("tree", size), ("ring", size / 2), ("sharded", size / 2)):
        found = predicted(name, pair, size, directly=False)
        on_cpus = predict_step(name, host, binomial(2), work)
        assert found.sum_s == pytest.approx(2 * SLICE_S + (size + owned) / slot + on_cpus.sum_s)
        assert found.spread_s == pytest.approx(2 * SLICE_S + (size + owned) / slot + on_cpus.spread_s)
        assert found.update_s == pytest.approx(update_s(owned))
    mpi = predicted("mpi", pair, size)
    assert mpi.spread_s == pytest.approx(0.0)
    assert mpi.update_s == pytest.approx(update_s(size))


def test_a_gpu_that_ranks_share_shares_its_slot() -> None:
    one = Machine(gpus=tuple(Gpu(index, bus_id="0000:1b:00.0") for index in range(2)))
    two = Machine(gpus=tuple(Gpu(index, bus_id=f"0000:{index}b:00.0") for index in range(2)))
    seconds = [predicted("ring", machine, 1000 * MEGABYTES).sum_s for machine in (one, two)]
    copies_s = 1.5e9 / slot_bytes_per_s(Gpu(0))
    assert seconds[0] - seconds[1] == pytest.approx(copies_s)


def test_what_is_ranked_before_what() -> None:
    """With NVSwitch large arrays go through the GPUs' memory or NCCL, never by the host; one rank has its update alone."""
    machine = known_machine("hgx-h100")
    times = {name: predicted(name, machine, 240 * MEGABYTES, slices=15).total_s for name in DEVICE_STEP_EXCHANGES}
    assert max(times["sharded"], times["nccl"]) < min(times["ring"], times["mpi"]) / 5
    assert times["sharded"] < times["tree"]
    direct, staged = (
        predicted("sharded", machine, 240 * MEGABYTES, node_count=2, directly=directly).total_s
        for directly in (True, False)
    )
    assert direct < staged
    alone = predicted("sharded", machine.select([0]), MEGABYTES)
    assert (alone.sum_s, alone.spread_s) == (0.0, 0.0)
    assert alone.update_s == pytest.approx(update_s(MEGABYTES))

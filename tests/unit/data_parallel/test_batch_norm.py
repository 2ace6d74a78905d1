"""Batch normalization on several ranks: whose statistics count, over which batch they are, and that runs go on bit for bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data import LmdbWriter
from paratrain.data_parallel import create_parallel_solver
from paratrain.data_parallel.batch_norm import BATCH_NORM_MODES
from paratrain.errors import NotFiniteError
from paratrain.proto import Datum, SolverParameter, parse_prototxt
from paratrain.solvers import Solver

Array = npt.NDArray[Any]
# Normalized by the batch in three ways, and by stored statistics in two.
NET = """
layer {{ name: "records" type: "Data" top: "x" top: "y" data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "scaled" type: "Power" bottom: "x" top: "scaled" power_param {{ scale: {scale} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "scaled" top: "conv"
  convolution_param {{ num_output: 4 kernel_size: 3 bias_term: false weight_filler {{ type: "xavier" }} }} }}
{norms}
layer {{ name: "score" type: "InnerProduct" bottom: "normal" top: "score" inner_product_param {{ num_output: 3
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "y" top: "loss" }}
"""
NORMS = """
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" batch_norm_param { moving_average_fraction: 0.9 } }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "bn" type: "BN" bottom: "norm" top: "bn" bn_param { slope_filler { value: 1 } momentum: 0.9 } }
layer { name: "frozen" type: "BN" bottom: "bn" top: "bn" bn_param { slope_filler { value: 0.7 } frozen: true } }
layer { name: "stored" type: "BatchNorm" bottom: "bn" top: "stored" batch_norm_param { use_global_stats: true eps: 0.5 } }
layer { name: "normal" type: "ReLU" bottom: "stored" top: "normal" }
"""
NO_NORMS = 'layer { name: "normal" type: "ReLU" bottom: "conv" top: "normal" }'
SETTINGS = 'type: "SGD" momentum: 0.9 weight_decay: 0.01'


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "lmdb"
    rng = np.random.default_rng(5)
    with LmdbWriter(path) as writer:
        for index in range(96):
            # Each third record is brighter, so that the ranks' batches differ.
            pixels = bytes(int(value) for value in rng.integers(0, 128, 36) + 127 * (index % 3 == 0))
            datum = Datum(channels=1, height=6, width=6, label=int(rng.integers(3)), data=pixels)
            writer.put(b"%08d" % index, datum.SerializeToString())
    return path


def on_ranks(
    size: int,
    source: Path,
    batch: int,
    mode: str,
    run: Callable[[Solver], Any],
    *,
    settings: str = SETTINGS,
    norms: str = NORMS,
    exchange: str = "tree",
    scale: float = 0.01,
    **options: Any,
) -> list[Any]:
    """What `run` returns for the solver of each rank."""
    net = NET.format(source=source, batch=batch, norms=norms, scale=scale)
    text = (
        f'base_lr: 0.05 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false {settings} net_param {{ {net} }}'
    )

    def main(communicator: Communicator) -> Any:
        parameter = parse_prototxt(text, SolverParameter)
        solver = create_parallel_solver(parameter, communicator, exchange=exchange, batch_norm=mode, **options)
        try:
            found = run(solver)
            communicator.barrier()
            return found
        finally:
            solver.close()

    return run_threads(size, main)


def values_of(solver: Solver) -> tuple[Array, Array]:
    parameters = solver.net.parameters
    return parameters.data.host().copy(), parameters.statistics.host().copy()


def losses_and_values(solver: Solver) -> tuple[list[float], Array, Array]:
    losses = []
    for _ in range(4):
        solver.step(1)
        losses += solver.mean_over_ranks([solver.loss])
    return losses, *values_of(solver)


@pytest.mark.parametrize(
    ("settings", "exchange"),
    [
        (SETTINGS, "tree"),
        (SETTINGS, "sharded"),
        (f"{SETTINGS} iter_size: 2", "ring"),
        ('type: "Adam" clip_gradients: 0.3', "sharded"),
    ],
)
@pytest.mark.parametrize("size", [2, 3])
def test_synchronized_ranks_take_the_steps_of_one(source: Path, size: int, settings: str, exchange: str) -> None:
    [(losses, parameters, statistics)] = on_ranks(1, source, 12, "sync", losses_and_values, settings=settings)
    together = on_ranks(size, source, 12 // size, "sync", losses_and_values, settings=settings, exchange=exchange)
    apart = on_ranks(size, source, 12 // size, "root", losses_and_values, settings=settings, exchange=exchange)
    np.testing.assert_allclose(together[0][0], losses, rtol=1e-4)
    for _, found, found_statistics in together:
        np.testing.assert_allclose(found, parameters, rtol=2e-3, atol=2e-5)
        np.testing.assert_allclose(found_statistics, statistics, rtol=1e-3, atol=1e-5)
        assert np.array_equal(found, together[0][1])
        assert np.array_equal(found_statistics, together[0][2])
    assert np.abs(apart[0][1] - parameters).max() > 1e-3  # the test can tell


@pytest.mark.parametrize("exchange", ["tree", "sharded"])
def test_average_statistics_in_closed_form(source: Path, exchange: str) -> None:
    """After every step: 0.9 times what was, and the mean over ranks of their batches' means and variances."""

    def run(solver: Solver) -> list[tuple[Array, Array, list[Array]]]:
        found = []
        for _ in range(3):
            solver.step(1)
            x = solver.net.blobs["conv"].data.astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1)
            count = x.shape[1]
            statistics = [blob.data.copy() for blob in solver.net.params["norm"]]
            found.append((x.mean(axis=1), x.var(axis=1) * count / (count - 1), statistics))
        return found

    ranks = on_ranks(3, source, 4, "average", run, exchange=exchange)
    mean, variance, factor = np.zeros(4), np.zeros(4), 0.0
    for step in range(3):
        of_step = [found[step] for found in ranks]
        mean = 0.9 * mean + np.mean([one[0] for one in of_step], axis=0)
        variance = 0.9 * variance + np.mean([one[1] for one in of_step], axis=0)
        factor = 0.9 * factor + 1
        for _, _, statistics in of_step:
            for value, expected in zip(statistics, (mean, variance, factor), strict=True):
                np.testing.assert_allclose(value, np.broadcast_to(expected, value.shape), rtol=1e-5, atol=1e-6)
                assert value.dtype == np.float32
        assert np.abs(of_step[0][0] - mean / factor).max() > 1e-3  # the root's alone are others


def test_training_on_average_is_training_on_the_root_s(source: Path) -> None:
    """Whose statistics count changes nothing of what is learned, and stored ones stay as they were, to the bit."""

    def run(solver: Solver) -> Any:
        before = [blob.data.copy() for name in ("stored", "frozen") for blob in solver.net.params[name]]
        solver.step(4)
        after = [blob.data for name in ("stored", "frozen") for blob in solver.net.params[name]]
        assert all(map(np.array_equal, before, after))
        return values_of(solver)

    root, average = (on_ranks(3, source, 4, mode, run) for mode in ("root", "average"))
    assert np.array_equal(root[0][0], average[0][0])
    assert not np.array_equal(root[0][1], average[0][1])
    for ranks in (root, average):
        assert all(np.array_equal(one[1], ranks[0][1]) for one in ranks)


@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
def test_runs_go_on_bit_for_bit(source: Path, tmp_path: Path, mode: str) -> None:
    """With gradients that are sent as bfloat16, by a ring; a snapshot in between changes no bit either."""
    settings = f'{SETTINGS} iter_size: 2 snapshot_prefix: "{tmp_path}/run"'

    def whole(solver: Solver) -> Any:
        solver.step(5)
        return values_of(solver)

    def first(solver: Solver) -> None:
        solver.step(2)
        solver.snapshot()

    def rest(solver: Solver) -> Any:
        solver.restore(f"{tmp_path}/run_iter_2.solverstate")
        solver.step(3)
        return values_of(solver)

    def ranks(run: Callable[[Solver], Any]) -> Any:
        return on_ranks(2, source, 3, mode, run, settings=settings, exchange="ring", gradient_dtype="bfloat16")

    expected = ranks(whole)
    ranks(first)
    for found in ranks(rest):
        assert np.array_equal(found[0], expected[0][0])
        assert np.array_equal(found[1], expected[0][1])
    # In another mode they go on as well: with the same parameters, where only the statistics are others'.
    others = {"root": "average", "average": "root", "sync": "root"}
    found = on_ranks(2, source, 3, others[mode], rest, settings=settings, exchange="ring", gradient_dtype="bfloat16")
    assert np.array_equal(found[0][0], expected[0][0]) == (mode != "sync")
    assert not np.array_equal(found[0][1], expected[0][1])


@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
def test_periodic_snapshots_hold_the_statistics_of_all(source: Path, tmp_path: Path, mode: str) -> None:
    """Written in the middle of a call of step; and the statistics of a run without them are the same bits."""

    def run(solver: Solver) -> Any:
        solver.step(3)
        solver.keeper.wait()
        return values_of(solver)

    plain = on_ranks(2, source, 3, mode, run)
    written = on_ranks(2, source, 3, mode, run, settings=f'{SETTINGS} snapshot: 2 snapshot_prefix: "{tmp_path}/run"')
    assert all(np.array_equal(one, other) for one, other in zip(plain[0], written[0], strict=True))

    def read(solver: Solver) -> Any:
        solver.restore(f"{tmp_path}/run_iter_2.solverstate")
        return values_of(solver)

    def two(solver: Solver) -> Any:
        solver.step(2)
        return values_of(solver)

    loaded, expected = on_ranks(2, source, 3, mode, read), on_ranks(2, source, 3, mode, two)
    assert all(np.array_equal(one, other) for one, other in zip(loaded[0], expected[0], strict=True))


@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
def test_a_net_without_such_layers_does_not_care(source: Path, mode: str) -> None:
    found = on_ranks(2, source, 3, mode, losses_and_values, norms=NO_NORMS)
    expected = on_ranks(2, source, 3, "root", losses_and_values, norms=NO_NORMS)
    assert np.array_equal(found[0][1], expected[0][1])


@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
def test_the_rank_is_named_that_spoilt_what_all_share(source: Path, mode: str) -> None:
    def run(solver: Solver) -> str:
        if solver.rank == 2:
            solver.net.layers[1]._scale = np.inf  # type: ignore[attr-defined]
        with np.errstate(all="ignore"), pytest.raises(NotFiniteError) as raised:
            solver.step(1)
        return str(raised.value)

    for message in on_ranks(3, source, 3, mode, run):
        # What is not a number comes out of oneDNN's ReLU as 0: then the gradient tells, and not the loss.
        first = "the first that is not finite is blob 'scaled'"
        assert re.match(rf"iteration 0 on rank 2 of 3: the (loss is nan|gradient is not finite); {first}", message)


@pytest.mark.parametrize("mode", BATCH_NORM_MODES)
def test_skipped_steps_leave_the_statistics_as_they_were(source: Path, mode: str) -> None:
    """The second step is spoilt on rank 1 alone; all ranks leave it out."""

    def run(solver: Solver) -> Any:
        solver.sentinel.mode = "skip"
        with np.errstate(all="ignore"):
            solver.step(1)
            before = values_of(solver)
            if solver.rank == 1:
                solver.net.layers[1]._scale = np.inf  # type: ignore[attr-defined]
            solver.step(1)
        return before, values_of(solver), solver.iter

    for before, after, iteration in on_ranks(2, source, 3, mode, run):
        assert iteration == 2
        assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))

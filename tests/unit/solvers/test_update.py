from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.backends import create_backend
from paratrain.blob import Blob
from paratrain.net import Parameters
from paratrain.proto import ParamSpec, SolverParameter
from paratrain.solvers.runs import Run, find_runs, l2_norm, pieces
from paratrain.solvers.update import FlatUpdate

# (count, lr_mult, decay_mult, is a statistic), in the order of the net.
BLOBS = [(70, 1.0, 1.0, False), (5, 2.0, 0.0, False), (9, 1.0, 1.0, True), (40, 1.0, 1.0, False), (3, 1.0, 1.0, False)]


def make_parameters(blobs: Sequence[tuple[int, float, float, bool]] = BLOBS, seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    parameters = Parameters(np.float32)
    for number, (count, lr_mult, decay_mult, statistic) in enumerate(blobs):
        blob = Blob((count,))
        blob.data[...] = rng.normal(size=count)
        statistics = frozenset({0}) if statistic else frozenset()
        layer: Any = SimpleNamespace(
            name=f"layer{number}", blobs=[blob], statistic_blobs=statistics, writes_frozen_blobs=False
        )
        parameters.append(layer, 0, ParamSpec(lr_mult=lr_mult, decay_mult=decay_mult))
    parameters.flatten()
    parameters.diff.mutable_host()[...] = rng.normal(size=parameters.count)
    return parameters


class SgdUpdate(FlatUpdate):
    """The update with SGD's own part."""

    def __init__(self, parameters: Parameters, settings: SolverParameter) -> None:
        super().__init__(parameters, create_backend(), settings, 1)
        self._momentum = settings.momentum

    def run(self, start: int = 0, stop: int | None = None) -> None:
        self.update(self._compute, start, stop)

    def _compute(self, diff: Any, history: Sequence[Any], scratch: Any, rate: float) -> None:
        velocity = history[0]
        velocity[...] = self._momentum * velocity + rate * diff
        diff[...] = velocity


def make_update(parameters: Parameters, **fields: object) -> SgdUpdate:
    return SgdUpdate(parameters, SolverParameter(**fields))  # type: ignore[arg-type]


def sgd_step_by_step(
    parameters: Parameters, velocity: list[float], rate: float, settings: SolverParameter
) -> list[float]:
    """One value at a time, in double precision: what the values should be after a step."""
    data, diff = parameters.data.host(), parameters.diff.host()
    norm = sum(float(g) ** 2 for g in diff) ** 0.5
    clip = settings.clip_gradients / norm if 0 <= settings.clip_gradients < norm else 1.0
    result = []
    for entry in parameters.learnable:
        for index in range(entry.start, entry.stop):
            w, g = float(data[index]), float(diff[index]) * clip / settings.iter_size
            decay = settings.weight_decay * entry.decay_mult
            g += decay * (w if settings.regularization_type == "L2" else float(np.sign(w)))
            velocity[index] = settings.momentum * velocity[index] + rate * entry.lr_mult * g
            result.append(w - velocity[index])
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "regularization_type": "L1"},
        {"clip_gradients": 0.5},
        {"clip_gradients": 1e6},
        {"iter_size": 4},
        {"momentum": 0.9, "weight_decay": 0.1, "clip_gradients": 0.5, "iter_size": 4},
    ],
)
def test_the_update_is_caffes(fields: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.solvers.update.PIECE_COUNT", 16)
    parameters, settings = make_parameters(), SolverParameter(**fields)  # type: ignore[arg-type]
    update, velocity = make_update(parameters, **fields), [0.0] * 118
    for rate in (0.1, 0.05):
        expected = sgd_step_by_step(parameters, velocity, rate, settings)
        before = parameters.data.host().copy()
        update.begin(rate)
        update.run()
        np.testing.assert_allclose(parameters.data.host(), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(before - parameters.diff.host(), parameters.data.host(), rtol=1e-5, atol=1e-6)
        parameters.diff.mutable_host()[...] = np.random.default_rng(5).normal(size=118)


@given(st.lists(st.integers(0, 118), max_size=6), st.randoms(use_true_random=False))
def test_updating_slices_in_any_order_gives_the_same_bits(cuts: list[int], random: Any) -> None:
    fields: dict[str, object] = {"momentum": 0.9, "weight_decay": 0.1, "clip_gradients": 0.5, "iter_size": 2}
    whole, sliced = make_parameters(), make_parameters()
    update = make_update(whole, **fields)
    update.begin(0.1)
    update.run()
    edges = sorted({0, *cuts, 118})
    ranges = list(itertools.pairwise(edges))
    random.shuffle(ranges)
    update = make_update(sliced, **fields)
    update.begin(0.1)
    for start, stop in ranges:
        update.run(start, stop)
    assert whole.data.host().tobytes() == sliced.data.host().tobytes()


def test_statistics_are_left_alone() -> None:
    parameters = make_parameters()
    before = parameters.statistics.host().copy()
    update = make_update(parameters, weight_decay=0.5)
    update.begin(1.0)
    update.run()
    assert before.size == 9
    np.testing.assert_array_equal(parameters.statistics.host(), before)


def test_neighbours_that_learn_alike_form_a_run() -> None:
    assert find_runs(make_parameters().learning) == [
        Run(0, 70, 1.0, 1.0),
        Run(70, 75, 2.0, 0.0),
        Run(75, 118, 1.0, 1.0),
    ]


def test_pieces_cover_a_range_once() -> None:
    runs = find_runs(make_parameters().learning)
    covered = [index for _, piece in pieces(runs, 60, 100, 16) for index in range(piece.start, piece.stop)]
    assert covered == list(range(60, 100))
    assert max(piece.stop - piece.start for _, piece in pieces(runs, 0, 118, 16)) == 16


def test_begin_tells_the_norm_only_where_it_is_too_large() -> None:
    parameters = make_parameters()
    norm = float(np.linalg.norm(parameters.diff.host().astype(np.float64)))
    assert make_update(parameters, clip_gradients=norm * 1.1).begin(0.1) is None
    assert make_update(parameters, clip_gradients=norm * 0.9).begin(0.1) == pytest.approx(norm, rel=1e-6)
    assert make_update(parameters).begin(0.1) is None


def test_the_norm_of_many_pieces() -> None:
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    assert l2_norm(values, np, 64) == pytest.approx(float(np.sqrt((values.astype(np.float64) ** 2).sum())), rel=1e-6)


def test_a_gradient_that_is_not_finite_is_not_hidden() -> None:
    parameters = make_parameters()
    parameters.diff.mutable_host()[3] = np.nan
    update = make_update(parameters, clip_gradients=0.5)
    update.begin(0.1)
    update.run()
    assert np.isnan(parameters.data.host()[3])

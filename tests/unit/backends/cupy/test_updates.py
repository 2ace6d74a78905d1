"""Updates on the GPU: against the NumPy backend's passes, against the formulas in double precision, and against themselves."""

from __future__ import annotations

import importlib
import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.backends.base import Backend
from paratrain.backends.update_rules import AdamRule, DeviceUpdate, MomentumRule, Regularization, UpdateRule
from paratrain.blob import Blob
from paratrain.net import Parameters
from paratrain.proto import ParamSpec, SolverParameter
from paratrain.solvers import SOLVERS
from paratrain.solvers.device_update import DeviceFlatUpdate, create_flat_update
from paratrain.solvers.policies import Policies
from paratrain.solvers.update import FlatUpdate

# (count, lr_mult, decay_mult): runs that begin within a group of 16 bytes, several in one group, one of many pieces.
BLOBS = [(70, 1.0, 1.0), (1, 2.0, 0.0), (1, 3.0, 1.0), (1, 1.0, 2.0), (20_003, 1.0, 1.0), (43, 0.5, 0.0)]
COUNT = sum(count for count, *_ in BLOBS)
TYPES: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.9},
    "AdaGrad": {},
    "RMSProp": {"rms_decay": 0.9},
    "AdaDelta": {"momentum": 0.9, "delta": 1e-4},
    "Adam": {"momentum": 0.9},
    "AdamW": {"momentum": 0.9},
}


class Updating:
    """The parameters of no net, and a solver's update of them on some backend."""

    def __init__(self, backend: Backend, kind: str, dtype: npt.DTypeLike = np.float32, **fields: Any) -> None:
        self.settings = SolverParameter(type=kind, **{**TYPES[kind], **fields})
        rng = np.random.default_rng(1)
        self.parameters = Parameters(dtype)
        for number, (count, lr_mult, decay_mult) in enumerate(BLOBS):
            blob = Blob((count,), dtype)
            blob.data[...] = rng.normal(size=count)
            layer: Any = SimpleNamespace(
                name=f"layer{number}", blobs=[blob], statistic_blobs=frozenset(), writes_frozen_blobs=False
            )
            self.parameters.append(layer, 0, ParamSpec(lr_mult=lr_mult, decay_mult=decay_mult))
        self.parameters.flatten()
        solver_type = SOLVERS.get(kind)
        self.solver: Any = object.__new__(solver_type)
        self.solver.parameter, self.solver.backend, self.solver.iter = self.settings, backend, 0
        self.solver.policies = Policies(self.settings, None)
        self.flat: FlatUpdate = create_flat_update(
            self.parameters,
            backend,
            self.settings,
            solver_type.history_count,
            decoupled_decay=solver_type.decoupled_decay,
            has_rules=solver_type.has_rules(),
        )

    def step(
        self,
        rate: float = 0.05,
        bad: dict[int, float] | None = None,
        cuts: tuple[int, ...] = (),
        *,
        looks: bool = False,
        keeps: bool = False,
        gradient_factor: float = 1.0,
    ) -> bool:
        """A step with the gradient of this iteration, whose values ``bad`` are others. Whether it was finite."""
        gradient = np.random.default_rng(self.solver.iter + 7).normal(size=COUNT)
        self.parameters.diff.mutable_host()[...] = gradient * gradient_factor
        for place, value in (bad or {}).items():
            self.parameters.diff.mutable_host()[place] = value
        self.solver.prepare_update(rate)
        norms = self.flat.measure(looks=looks)
        is_finite = norms.is_finite is not False
        if is_finite:
            rule = self.solver.update_rule()
            self.flat.begin(rate, iteration=self.solver.iter, norms=norms, rule=rule, keeps_updates=keeps)
            for start, stop in itertools.pairwise((0, *cuts, COUNT)):
                compute, guarded = self.solver.compute_update_value, norms.is_finite is None
                is_finite &= self.flat.update(compute, start, stop, guarded=guarded)
            is_finite &= self.flat.finish()
        self.solver.iter += 1
        return is_finite

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        return [self.parameters.data.host(), *(memory.host() for memory in self.flat.history)]

    @property
    def bits(self) -> list[bytes]:
        return [array.tobytes() for array in self.arrays]


def on_gpu(kind: str, **fields: Any) -> Updating:
    made = Updating(create_backend("cupy"), kind, **fields)
    assert isinstance(made.flat, DeviceFlatUpdate)
    return made


def on_host(kind: str, **fields: Any) -> Updating:
    return Updating(create_backend("numpy"), kind, **fields)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "regularization_type": "L1"},
    {"weight_decay": 0.1, "clip_gradients": 20.0, "iter_size": 4},
    {"clip_gradients": 1e6},
    {"weight_decay": 0.01, "larc": True},
    {"weight_decay": 0.01, "clip_gradients": 20.0, "local_lr_auto": True, "iter_size": 2},
]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("fields", SETTINGS, ids=lambda fields: "-".join(fields) or "plain")
def test_is_the_numpy_backends_update(kind: str, fields: dict[str, Any]) -> None:
    gpu, host = on_gpu(kind, **fields), on_host(kind, **fields)
    for rate in (0.05, 0.02, 0.03):
        assert gpu.step(rate)
        assert host.step(rate)
        if fields.get("clip_gradients") and not gpu.flat.local_rates:
            assert gpu.flat.clipped_norm == (host.flat.clipped_norm and pytest.approx(host.flat.clipped_norm, rel=1e-6))
        for found, wanted in zip(gpu.arrays, host.arrays, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=1e-6)


def test_larc_turbo_is_the_numpy_backends() -> None:
    fields = {"weight_decay": 0.01, "larc": True, "larc_turbo": True}
    gpu, host = on_gpu("SGD", **fields), on_host("SGD", **fields)
    for _ in range(4):
        gpu.step()
        host.step()
    assert gpu.flat.local_rates is not None and host.flat.local_rates is not None
    assert gpu.flat.local_rates.correlations == pytest.approx(host.flat.local_rates.correlations, rel=1e-4, abs=1e-7)
    np.testing.assert_allclose(gpu.arrays[0], host.arrays[0], rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_double_precision(kind: str) -> None:
    gpu, host = on_gpu(kind, dtype=np.float64, weight_decay=0.1), on_host(kind, dtype=np.float64, weight_decay=0.1)
    for _ in range(2):
        gpu.step()
        host.step()
    for found, wanted in zip(gpu.arrays, host.arrays, strict=True):
        # A GPU rounds a product and a sum at once: where they nearly cancel, more than the last bits differ.
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", TYPES)
def test_what_was_subtracted_is_kept_where_it_is_wanted(kind: str) -> None:
    gpu = on_gpu(kind, weight_decay=0.1)
    before = gpu.parameters.data.host().copy()
    gpu.step(keeps=True)
    np.testing.assert_allclose(before - gpu.parameters.diff.host(), gpu.parameters.data.host(), atol=1e-7)
    gradient = gpu.parameters.diff.host().copy()
    gpu.step(keeps=False)
    assert not np.array_equal(gpu.parameters.diff.host(), gradient)
    np.testing.assert_array_equal(
        gpu.parameters.diff.host(), np.random.default_rng(8).normal(size=COUNT).astype(np.float32)
    )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("cuts", [(), (1, 70, 71, 74, 5001, 20_075), (3, 4, 8, 8, 8000)])
def test_two_runs_and_any_parts_give_the_same_bits(kind: str, cuts: tuple[int, ...]) -> None:
    whole, parts = (on_gpu(kind, weight_decay=0.1, clip_gradients=20.0) for _ in range(2))
    for _ in range(2):
        whole.step()
        parts.step(cuts=cuts)
    assert whole.bits == parts.bits


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 72, COUNT - 1])
def test_a_guarded_update_leaves_alone_what_is_not_finite(kind: str, value: float, place: int) -> None:
    spoilt, good = on_gpu(kind, weight_decay=0.1), on_gpu(kind, weight_decay=0.1)
    before = [array[place] for array in spoilt.arrays]
    assert not spoilt.step(bad={place: value})
    assert good.step()
    assert [array[place] for array in spoilt.arrays] == before
    others = np.arange(COUNT) != place
    for found, wanted in zip(spoilt.arrays, good.arrays, strict=True):
        np.testing.assert_array_equal(found[others], wanted[others])
    assert spoilt.step()  # the flag is of one step


@pytest.mark.parametrize("fields", [{}, {"clip_gradients": 20.0}, {"clip_gradients": 20.0, "larc": True}])
@pytest.mark.parametrize("place", [0, 8191, 8192, COUNT - 1])
def test_nothing_is_touched_where_it_is_looked_first(fields: dict[str, Any], place: int) -> None:
    gpu = on_gpu("Adam", **fields)
    gpu.step()
    before = gpu.bits
    for value in (math.nan, math.inf):
        assert not gpu.step(bad={place: value}, looks=True)
        assert gpu.flat.clipped_norm is None or "larc" in fields
        assert gpu.bits == before
    assert gpu.step(looks=True)
    assert gpu.bits != before
    assert gpu.step(bad={place: 3e38}, looks=True)  # finite, though its square is not in float32


@pytest.mark.parametrize("fields", [{}, {"clip_gradients": 20.0}, {"local_lr_auto": True, "clip_gradients": 20.0}])
def test_a_scaled_loss_changes_nothing(fields: dict[str, Any]) -> None:
    plain, scaled = (on_gpu("SGD", weight_decay=0.1, **fields) for _ in range(2))
    scaled.flat.loss_scale = 1024.0
    host = on_host("SGD", weight_decay=0.1, **fields)
    host.flat.loss_scale = 1024.0
    for _ in range(2):
        plain.step()
        scaled.step(gradient_factor=1024.0)
        host.step(gradient_factor=1024.0)
    assert scaled.flat.clipped_norm == (plain.flat.clipped_norm and pytest.approx(plain.flat.clipped_norm, rel=1e-6))
    np.testing.assert_allclose(scaled.arrays[0], plain.arrays[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(host.arrays[0], plain.arrays[0], rtol=2e-6, atol=1e-6)


def test_a_step_waits_once_and_allocates_nothing(simulated_gpu: Any) -> None:
    simulated = importlib.import_module("simulated")

    for fields in ({}, {"clip_gradients": 20.0}):
        gpu = on_gpu("Adam", **fields)
        for _ in range(3):  # a plain step, one that is recorded, and a replay
            gpu.step(looks=True)
        gpu.parameters.diff.mutable_host()[...] = 1.0
        gpu.parameters.diff.device(gpu.solver.backend.device)
        before = dict(simulated.counts)
        norms = gpu.flat.measure(looks=True)
        gpu.flat.begin(0.1, norms=norms, rule=gpu.solver.update_rule(), keeps_updates=False)
        gpu.flat.update(gpu.solver.compute_update_value)
        assert simulated.counts["download"] == before.get("download", 0)
        assert gpu.flat.finish()
        used = {name: count - before.get(name, 0) for name, count in simulated.counts.items()}
        assert (used.get("launch", 0), used["graph_launch"]) == (0, 1)
        # The graph sends the outcome; the host waits for it, and has made sure that older numbers have gone.
        assert (used["synchronize"], used["upload"], used.get("download", 0), used.get("allocate", 0)) == (2, 1, 0, 0)


# -- the backend's part, without a solver --------------------------------------------------------------------------------


def arrays_on_gpu(cupy: Any, count: int, seed: int = 3) -> list[Any]:
    """data, diff and two histories, none below 0."""
    rng = np.random.default_rng(seed)
    return [cupy.asarray(np.abs(rng.normal(size=count)).astype(np.float32)) for _ in range(4)]


def make_update(run_stops: list[int]) -> tuple[Backend, DeviceUpdate]:
    backend = create_backend("cupy")
    update = backend.device_update(run_stops, np.float32)
    assert update is not None
    return backend, update


@pytest.mark.parametrize("rule", [MomentumRule(0.9), AdamRule(0.9, 0.999, 0.5, 1e-8)])
@pytest.mark.parametrize("offset", [0, 1])
def test_two_gradients_are_added_in_arrays_of_any_alignment(simulated_gpu: Any, rule: UpdateRule, offset: int) -> None:
    _, update = make_update([40, 1000])
    arrays = [array[offset:] for array in arrays_on_gpu(simulated_gpu, 1000 + offset)]
    data, diff, *history = arrays
    second = arrays_on_gpu(simulated_gpu, 1000, seed=4)[1]
    w, g, h, h2 = (array.get().astype(np.float64) for array in arrays)
    update.prepare(rule, [0.1, 0.2], [0.0, 0.05], scale=0.5)
    update.run(3, 998, data, [diff, second], history, Regularization(), guarded=True)
    assert update.outcome().is_finite
    first_run = np.arange(1000) < 40
    rate, decay = np.where(first_run, 0.1, 0.2), np.where(first_run, 0.0, 0.05)
    gradient = 0.5 * (g + second.get()) + decay * w
    if isinstance(rule, MomentumRule):
        h = 0.9 * h + rate * gradient
        w -= h
    else:
        h, h2 = 0.9 * h + 0.1 * gradient, 0.999 * h2 + 0.001 * gradient**2
        w -= rate * 0.5 * h / (np.sqrt(h2) + 1e-8)
    inside = slice(3, 998)
    np.testing.assert_allclose(data.get()[inside], w[inside], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(history[0].get()[inside], h[inside], rtol=2e-6, atol=1e-6)
    for found, before in zip([data, history[0]], arrays_on_gpu(simulated_gpu, 1000 + offset)[::2], strict=True):
        for outside in (slice(0, 3), slice(998, 1000)):
            np.testing.assert_array_equal(found.get()[outside], before.get()[offset:][outside])


@pytest.mark.parametrize("loss", [np.nan, np.inf, 1.5])
def test_a_gradient_that_is_finite_makes_no_loss_so(simulated_gpu: Any, loss: float) -> None:
    _, update = make_update([40, 1000])
    data, diff, *history = arrays_on_gpu(simulated_gpu, 1000)
    before = data.get()
    update.prepare(AdamRule(0.9, 0.999, 0.5, 1e-8), [0.1, 0.2], [0.0, 0.05], scale=0.5)
    update.note_losses([simulated_gpu.asarray([loss], np.float32)])
    update.measure(diff, [(0, 1000)])
    update.run(0, 1000, data, [diff], history, Regularization())
    outcome = update.outcome()
    assert outcome.is_finite == np.isfinite(loss)
    np.testing.assert_equal(outcome.losses[0], loss)
    assert np.array_equal(data.get(), before) == (not np.isfinite(loss))


def test_a_recorded_step_follows_the_numbers_of_its_replay(simulated_gpu: Any) -> None:
    rules = AdamRule(0.9, 0.999, 0.5, 1e-8), AdamRule(0.8, 0.99, 0.7, 1e-8)
    numbers = [(rules[0], [0.1, 0.2], -1.0), (rules[1], [0.02, 0.03], 5.0), (rules[0], [0.1, 0.2], 1e9)]
    results = []
    for is_recorded in (False, True):
        backend, update = make_update([40, 9000])
        data, diff, *history = arrays_on_gpu(simulated_gpu, 9000)
        norms = []

        def run(update: DeviceUpdate = update, arrays: Any = (data, diff, history)) -> None:
            update.measure(arrays[1], [(0, 9000)])
            update.run(0, 9000, arrays[0], [arrays[1]], arrays[2], Regularization())

        def prepare(step: int, update: DeviceUpdate = update) -> None:
            rule, rates, limit = numbers[step]
            update.prepare(rule, rates, [0.01, 0.0], scale=0.5, limit=limit)

        prepare(0)
        run()
        norms.append(update.outcome().norm)
        recording = backend.record(run) if is_recorded else None
        assert (recording is not None) == is_recorded
        for step in (1, 2):
            prepare(step)
            if recording is None:
                run()
            else:
                recording.replay()
            norms.append(update.outcome().norm)
        results.append([norms, *(array.get().tobytes() for array in (data, *history))])
    assert results[0] == results[1]
    assert results[0][0] == pytest.approx([float(np.linalg.norm(diff.get().astype(np.float64)))] * 3, rel=1e-6)


def test_sums_of_products(simulated_gpu: Any) -> None:
    _, update = make_update([30_000])
    one, other = arrays_on_gpu(simulated_gpu, 30_000)[:2]
    ranges = [[(0, 3), (17, 20_001)], [(20_001, 30_000)], []]
    found = update.sum_products(ranges, [(one, one), (one, other), (other, other)])
    a, b = (array.get().astype(np.float64) for array in (one, other))
    for row, products in zip(found, (a * a, a * b, b * b), strict=True):
        wanted = [sum(products[start:stop].sum() for start, stop in each) for each in ranges]
        np.testing.assert_allclose(row, wanted, rtol=1e-12)
    assert found.tobytes() == update.sum_products(ranges, [(one, one), (one, other), (other, other)]).tobytes()
    other[25_000] = np.inf
    found = update.sum_products(ranges, [(one, other)])
    assert np.isnan(found).tolist() == [[False, True, False]]


def test_more_values_than_kernels_can_count_are_left_to_array_code(simulated_gpu: Any) -> None:
    backend = create_backend("cupy")
    assert backend.device_update([7, 2**31], np.float32) is None
    assert backend.device_update([7, 100], np.float32) is not None

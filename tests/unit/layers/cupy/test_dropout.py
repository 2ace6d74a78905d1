"""Dropout on the simulated GPU: the masks are the plain layer's, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.base import Clock, LayerContext
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import LayerRun, set_up_layer
from tests.unit.layers.cupy.passes import FORMS, check_recording, form_of, lay, run_passes
from tests.unit.layers.golden import run_golden_case

LAYER = 'name: "drop" type: "Dropout" dropout_param { dropout_ratio: %g }'


@pytest.fixture(scope="module")
def backend(simulated_gpu: Any) -> CupyBackend:
    return CupyBackend()


def run(backend: Any, x: Any, layer: str = LAYER % 0.4, phase: Any = TRAIN, **where: Any) -> LayerRun:
    """The layer after forward and backward of ``x``, whose gradient is ``x`` as well."""
    made = set_up_layer(layer, [x], context=LayerContext(backend=backend, phase=phase, seed=11, **where))
    made.layer.forward(made.bottoms, made.tops)
    made.tops[0].diff[...] = x
    made.layer.backward(made.tops, [True], made.bottoms)
    return made


def written(made: LayerRun) -> list[npt.NDArray[Any]]:
    return [made.tops[0].data, made.bottoms[0].diff]


def test_agrees_with_caffe() -> None:
    assert run_golden_case("dropout_test", backend="cupy").layer.is_capturable


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (3, 5, 2, 7), (2, 1, 1, 2049)])
def test_bits_are_those_of_the_plain_layer(backend: CupyBackend, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for rank, size, iteration, sub_iteration in ((0, 1, 0, 0), (0, 1, 6, 1), (2, 3, 100_000, 0)):
        where: dict[str, Any] = {"rank": rank, "size": size, "clock": Clock(iteration, sub_iteration)}
        ours, plain = (written(run(one, x, **where)) for one in (backend, create_backend("numpy")))
        for values, expected in zip(ours, plain, strict=True):
            np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("ratio", [0, 0.25, 0.9, 1 - 2**-24])
def test_ratios(backend: CupyBackend, ratio: float) -> None:
    x = np.ones((40, 50), np.float32)
    layer = f'name: "drop" type: "Dropout" dropout_param {{ dropout_ratio: {ratio!r} }}'
    for values, expected in zip(
        written(run(backend, x, layer)), written(run(create_backend("numpy"), x, layer)), strict=True
    ):
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_any_form(backend: CupyBackend, form: str, in_place: bool) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 2, 7))
    passes = run_passes(LAYER % 0.5, [x], form, backend=backend, in_place=in_place)
    passes.check(name=form)
    assert backend.forms.found(passes.run.bottoms[0].diff_memory, x.shape) == form_of(form, x.shape)


def test_phase_test(backend: CupyBackend) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(written(run(backend, x, phase=TEST)), [x, x])
    unscaled = 'type: "Dropout" dropout_param { dropout_ratio: 0.2 scale_train: false }'
    np.testing.assert_allclose(written(run(backend, x, unscaled, phase=TEST)), [x * 0.8, x * 0.8], rtol=1e-6)
    in_place = set_up_layer(LAYER % 0.5, [x], in_place=True, context=LayerContext(backend=backend, phase=TEST))
    np.testing.assert_array_equal(in_place.forward()[0], x)


@pytest.mark.parametrize("form", ["float32", "bfloat16 last"])
def test_a_recorded_pass_draws_anew(backend: CupyBackend, form: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5, 2, 7))
    check_recording(LAYER % 0.5, [[x], [x], [x]], form, backend=backend)


def test_a_recording_without_a_new_key_repeats(backend: CupyBackend) -> None:
    x = np.ones((6, 50), np.float32)
    made = run(backend, x, clock=Clock(4))
    first = made.tops[0].read_data(None).copy()
    form = form_of("float32", x.shape)
    lay(backend, made.bottoms[0].data_memory, x, form)
    recording = backend.record(lambda: made.layer.forward(made.bottoms, made.tops))
    assert recording is not None
    top = made.tops[0].read_data(backend.device)
    recording.replay()
    np.testing.assert_array_equal(top.get(), first)
    made.layer.context.clock.iteration = 5
    made.layer.before_replay()
    recording.replay()
    np.testing.assert_array_equal(top.get(), written(run(backend, x, clock=Clock(5)))[0])
    assert not np.array_equal(top.get(), first)

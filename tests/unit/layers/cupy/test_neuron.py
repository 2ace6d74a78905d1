"""Layers that work value by value, on the simulated GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import away_from, set_up_layer
from tests.unit.layers.cupy.passes import FORMS, check_recording, run_passes
from tests.unit.layers.golden import run_golden_case

GOLDEN = [
    "absval",
    "bnll",
    "clip",
    "elu",
    "exp",
    "exp_base2",
    "log",
    "power",
    "prelu",
    "relu",
    "relu_leaky",
    "sigmoid",
    "swish",
    "tanh",
    "threshold",
]

# The layer, its kinks, whether it works in place.
LAYERS: dict[str, tuple[str, list[float], bool]] = {
    "absval": ('type: "AbsVal"', [0], False),
    "bnll": ('type: "BNLL"', [], True),
    "clip": ('type: "Clip" clip_param { min: -0.5 max: 0.75 }', [-0.5, 0.75], True),
    "elu": ('type: "ELU" elu_param { alpha: 0.25 }', [0], True),
    "elu, lambda": ('type: "ELU" elu_param { alpha: 1.5 lambda: 1.25 }', [0], True),
    "elu, negative alpha": ('type: "ELU" elu_param { alpha: -0.5 }', [0], True),
    "exp": ('type: "Exp" exp_param { base: 2 scale: -0.5 shift: 0.25 }', [], True),
    "log": ('type: "Log" log_param { base: 10 scale: -0.5 shift: 8 }', [], True),
    "power": ('type: "Power" power_param { power: 1.7 scale: -0.5 shift: 4 }', [], True),
    "power 0.5": ('type: "Power" power_param { power: 0.5 shift: 6 }', [], True),
    "power 1": ('type: "Power" power_param { scale: -1.5 shift: 2 }', [], True),
    "power 2": ('type: "Power" power_param { power: 2 scale: 0.5 }', [], True),
    "power -1": ('type: "Power" power_param { power: -1 shift: 8 }', [], True),
    "power 0": ('type: "Power" power_param { power: 0 }', [], True),
    "scale 0": ('type: "Power" power_param { power: 3 scale: 0 shift: 2 }', [], True),
    "prelu": ('type: "PReLU" prelu_param { filler { type: "gaussian" std: 1 } }', [0], True),
    "prelu, one slope": ('type: "PReLU" prelu_param { channel_shared: true }', [0], True),
    "relu": ('type: "ReLU"', [0], True),
    "relu, leaky": ('type: "ReLU" relu_param { negative_slope: 0.1 }', [0], True),
    "relu6": ('type: "ReLU6"', [0, 6], True),
    "relu6, leaky": ('type: "ReLU6" relu6_param { negative_slope: 0.1 }', [0, 6], True),
    "sigmoid": ('type: "Sigmoid"', [], True),
    "swish": ('type: "Swish" swish_param { beta: -1.5 }', [], True),
    "tanh": ('type: "TanH"', [], True),
}
IN_PLACE = [(name, in_place) for name in LAYERS for in_place in (False, True) if LAYERS[name][2] or not in_place]


@pytest.fixture(scope="module")
def backend(simulated_gpu: Any) -> CupyBackend:
    return CupyBackend()


def values(name: str, shape: tuple[int, ...] = (3, 5, 2, 7)) -> Any:
    return away_from(np.random.default_rng(0).normal(size=shape) * 2, LAYERS[name][1], 0.1)


@pytest.mark.parametrize("name", GOLDEN)
def test_agrees_with_caffe(name: str) -> None:
    run = run_golden_case(name, backend="cupy")
    assert type(run.layer).__name__.startswith("Cupy")
    assert run.layer.is_capturable


@pytest.mark.parametrize("form", FORMS[:-1])  # float16 is one more compilation, and no different here
@pytest.mark.parametrize(("name", "in_place"), IN_PLACE)
def test_agrees_with_the_plain_layer_in_any_form(backend: CupyBackend, name: str, in_place: bool, form: str) -> None:
    passes = run_passes(LAYERS[name][0], [values(name)], form, backend=backend, in_place=in_place)
    assert passes.run.layer.is_capturable
    # Where the slope is told by the top, it is as exact as what is stored of that.
    passes.check(name=form, rtol=10)
    for memory in (passes.run.tops[0].data_memory, passes.run.bottoms[0].diff_memory):
        assert backend.forms.found(memory, passes.form.shape) == passes.form


@pytest.mark.parametrize("name", ["relu", "tanh", "prelu"])
def test_gradients_that_come_in_another_form(backend: CupyBackend, name: str) -> None:
    for bottom_form, top_form in (
        ("bfloat16 last", "float32"),
        ("float32", "bfloat16 last"),
        ("float32 last", "float32"),
    ):
        passes = run_passes(LAYERS[name][0], [values(name)], bottom_form, backend=backend, top_form=top_form)
        passes.check(name="bfloat16" if "bfloat16" in bottom_form + top_form else "float32", rtol=10)


@pytest.mark.parametrize("shape", [(1,), (), (2, 3), (1, 1, 1, 1), (2, 5001), (3, 200_001)])
def test_any_number_of_values(backend: CupyBackend, shape: tuple[int, ...]) -> None:
    for name in ("clip",) if len(shape) == 2 else ("clip", "tanh"):
        run_passes(LAYERS[name][0], [values(name, shape)], backend=backend).check(rtol=10)


def test_threshold_in_narrow_forms(backend: CupyBackend) -> None:
    layer = 'type: "Threshold" threshold_param { threshold: 0.25 }'
    for form in FORMS:
        run_passes(layer, [values("relu")], form, backend=backend, propagate=[False]).check(bottoms=(), name=form)


def test_slopes_are_summed_over_many_parts(backend: CupyBackend) -> None:
    x = values("prelu", (2, 40, 90, 60))
    for form in ("float32", "float32 last"):
        for name in ("prelu", "prelu, one slope"):
            run_passes(LAYERS[name][0], [x], form, backend=backend, in_place=True).check(rtol=100)


def test_what_is_no_number_and_what_is_infinite(backend: CupyBackend) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 1.0]])
    for layer in ('type: "ReLU"', 'type: "ReLU6"'):
        run = set_up_layer(layer, [x], context=LayerContext(backend=backend, phase=TRAIN))
        y = run.forward()[0]
        np.testing.assert_array_equal(y, [[np.nan, np.inf if layer == 'type: "ReLU"' else 6, 0, 1]])


@pytest.mark.parametrize(("name", "in_place"), [("bnll", True), ("prelu", True), ("elu", False), ("relu", True)])
@pytest.mark.parametrize("form", ["float32", "bfloat16 last"])
def test_a_recorded_pass_gives_the_same_bits(backend: CupyBackend, name: str, in_place: bool, form: str) -> None:
    batches = [[values(name)], [-values(name)[::-1]]]
    for top_form in (form, "float32", "bfloat16"):
        check_recording(LAYERS[name][0], batches, form, backend=backend, in_place=in_place, top_form=top_form)

"""AbsVal, BNLL, Clip, ELU, Exp, Log, Swish, Threshold."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from paratrain.errors import LayerError
from paratrain.layers import LAYERS
from paratrain.proto import LayerParameter
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case

SHAPES = [(1,), (4, 3), (1, 1, 1, 1), (2, 3, 4, 5), ()]


def elu(alpha: float, factor: float = 1.0) -> Callable[[float], float]:
    return lambda x: factor * (x if x > 0 else alpha * (math.exp(x) - 1))


def clip(low: float, high: float) -> Callable[[float], float]:
    return lambda x: min(max(x, low), high)


# The layer, its definition, its kinks, whether it works in place.
LAYERS_AND_VALUES: dict[str, tuple[str, Callable[[float], float], list[float], bool]] = {
    "absval": ('type: "AbsVal"', abs, [0], False),
    "bnll": ('type: "BNLL"', lambda x: math.log(1 + math.exp(x)), [], True),
    "clip": ('type: "Clip" clip_param { min: -0.5 max: 0.75 }', clip(-0.5, 0.75), [-0.5, 0.75], True),
    "clip to one value": ('type: "Clip" clip_param { min: 2 max: 2 }', clip(2, 2), [2], True),
    "elu": ('type: "ELU"', elu(1), [0], True),
    "elu, alpha": ('type: "ELU" elu_param { alpha: 0.25 }', elu(0.25), [0], True),
    "elu, no alpha": ('type: "ELU" elu_param { alpha: 0 }', elu(0), [0], True),
    "elu, negative alpha": ('type: "ELU" elu_param { alpha: -0.5 }', elu(-0.5), [0], True),
    "elu, lambda": ('type: "ELU" elu_param { alpha: 1.5 lambda: 1.25 }', elu(1.5, 1.25), [0], True),
    "elu, negative lambda": ('type: "ELU" elu_param { lambda: -2 }', elu(1, -2), [0], True),
    "exp": ('type: "Exp"', math.exp, [], True),
    "exp, all": ('type: "Exp" exp_param { base: 2 scale: -0.5 shift: 3 }', lambda x: 2 ** (3 - 0.5 * x), [], True),
    "exp, base below 1": ('type: "Exp" exp_param { base: 0.5 }', lambda x: 0.5**x, [], True),
    "exp, shift": ('type: "Exp" exp_param { shift: -1 }', lambda x: math.exp(x - 1), [], True),
    "log": ('type: "Log" log_param { shift: 12 }', lambda x: math.log(12 + x), [], True),
    "log, all": (
        'type: "Log" log_param { base: 10 scale: -0.5 shift: 8 }',
        lambda x: math.log10(8 - 0.5 * x),
        [],
        True,
    ),
    "log, base below 1": (
        'type: "Log" log_param { base: 0.5 shift: 12 }',
        lambda x: -math.log2(12 + x),
        [],
        True,
    ),
    "swish": ('type: "Swish"', lambda x: x / (1 + math.exp(-x)), [], True),
    "swish, beta": ('type: "Swish" swish_param { beta: -1.5 }', lambda x: x / (1 + math.exp(1.5 * x)), [], True),
    "threshold": ('type: "Threshold" threshold_param { threshold: 0.25 }', lambda x: float(x > 0.25), [0.25], True),
    "threshold 0": ('type: "Threshold"', lambda x: float(x > 0), [0], True),
}
IN_PLACE = [(name, in_place) for name in LAYERS_AND_VALUES for in_place in (False, LAYERS_AND_VALUES[name][3])]


@pytest.mark.parametrize("name", ["absval", "bnll", "clip", "elu", "exp", "exp_base2", "log", "swish", "threshold"])
def test_golden(name: str) -> None:
    run_golden_case(name)


@pytest.mark.parametrize(("name", "in_place"), IN_PLACE)
def test_forward(name: str, in_place: bool) -> None:
    layer, plain, _, _ = LAYERS_AND_VALUES[name]
    x = np.random.default_rng(0).normal(size=(3, 2, 5)) * 3
    x[0, 0] = [0, 0.25, -0.5, 0.75, 2]
    (y,) = set_up_layer(layer, [x], in_place=in_place).forward()
    np.testing.assert_allclose(y.reshape(-1), [plain(value) for value in x.reshape(-1)], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("name", "in_place"), [pair for pair in IN_PLACE if not pair[0].startswith("threshold")])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(name: str, in_place: bool, shape: tuple[int, ...]) -> None:
    layer, _, kinks, _ = LAYERS_AND_VALUES[name]
    check_gradient(layer, [np.random.default_rng(1).normal(size=shape)], kinks=kinks, in_place=in_place)


@pytest.mark.parametrize("name", LAYERS_AND_VALUES)
def test_reshape_to_more_and_fewer_values(name: str) -> None:
    layer, plain, _, _ = LAYERS_AND_VALUES[name]
    run = set_up_layer(layer, [np.ones((2, 3))])
    for shape in ((4, 5), (1, 2), (3, 3)):
        run.bottoms[0].reshape(*shape)
        run.bottoms[0].data[...] = -0.7
        run.layer.reshape(run.bottoms, run.tops)
        np.testing.assert_allclose(run.forward()[0], np.full(shape, plain(-0.7)))
        if run.layer.type == "Threshold":
            continue
        run.tops[0].diff[...] = 2
        run.layer.backward(run.tops, [True], run.bottoms)
        slope = (plain(-0.7 + 1e-6) - plain(-0.7 - 1e-6)) / 2e-6
        np.testing.assert_allclose(run.bottoms[0].diff, np.full(shape, 2 * slope), rtol=1e-5, atol=1e-8)


def gradient_at(layer: str, values: list[float], in_place: bool = False) -> list[float]:
    run = set_up_layer(layer, [np.array(values)], in_place=in_place)
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    return list(run.bottoms[0].diff)


def test_gradients_at_the_kinks_are_caffes() -> None:
    assert gradient_at('type: "AbsVal"', [0, -1, 1]) == [0, -1, 1]
    assert gradient_at('type: "ELU" elu_param { alpha: 0.5 }', [0]) == [0.5]
    for in_place in (False, True):
        limits = 'type: "Clip" clip_param { min: -1 max: 2 }'
        assert gradient_at(limits, [-1, 2, -1.5, 2.5, 0], in_place) == [1, 1, 0, 0, 1]


def test_large_values_do_not_overflow() -> None:
    x = np.array([-1e4, 1e4])
    for name, expected in (("BNLL", [0, 1e4]), ("Swish", [0, 1e4]), ("ELU", [-1, 1e4])):
        run = set_up_layer(f'type: "{name}"', [x], dtype=np.float32)
        assert run.forward()[0].tolist() == expected
        run.tops[0].diff[...] = 1
        run.layer.backward(run.tops, [True], run.bottoms)
        assert run.bottoms[0].diff.tolist() == [0, 1]


def test_log_of_what_has_no_logarithm_is_silent() -> None:
    (y,) = set_up_layer('type: "Log"', [np.array([0.0, -1, 1])]).forward()
    assert y[0] == -np.inf and np.isnan(y[1]) and y[2] == 0


def test_exp_undoes_log_in_every_base() -> None:
    x = np.random.default_rng(2).uniform(0.5, 9, size=(3, 4))
    for base in (-1, 0.5, 2, 10):
        (log,) = set_up_layer(f'type: "Log" log_param {{ base: {base} }}', [x]).forward()
        (y,) = set_up_layer(f'type: "Exp" exp_param {{ base: {base} }}', [log]).forward()
        np.testing.assert_allclose(y, x, rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Clip"', "give both limits"),
        ('type: "Clip" clip_param { min: 2 max: 1 }', "min is 2, above clip_param.max, 1"),
        ('type: "Exp" exp_param { base: 0 }', "exp_param.base is 0; it must be above 0"),
        ('type: "Exp" exp_param { base: -2 }', "exp_param.base is -2"),
        ('type: "Exp" exp_param { base: nan }', "exp_param.base is nan"),
        ('type: "Log" log_param { base: 1 }', "log_param.base is 1; it must be above 0 and not 1"),
        ('type: "Log" log_param { base: -3 }', "log_param.base is -3"),
    ],
)
def test_refuses(layer: str, message: str) -> None:
    with pytest.raises(LayerError, match=rf"layer 'layer' \(\w+\): .*{message}"):
        set_up_layer(layer, [np.zeros(3)])


def test_clip_wants_limits_even_without_protobufs_help() -> None:
    parameter = LayerParameter(name="c", type="Clip")
    parameter.clip_param.min = 1
    with pytest.raises(LayerError, match="give both limits"):
        set_up_layer(parameter, [np.zeros(3)])


def test_absval_refuses_to_work_in_place() -> None:
    with pytest.raises(LayerError, match=r"\(AbsVal\): cannot work in place"):
        set_up_layer('type: "AbsVal" bottom: "x" top: "x"', [np.zeros(3)], in_place=True)


def test_threshold_has_no_gradient() -> None:
    run = set_up_layer('type: "Threshold" bottom: "x"', [np.zeros(3)])
    run.forward()
    run.layer.backward(run.tops, [False], run.bottoms)
    with pytest.raises(LayerError, match=r"\(Threshold\): has no gradient, but bottom\[0\] 'x' wants one"):
        run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.layer.allow_force_backward(0)


def test_each_takes_one_bottom_and_one_top() -> None:
    for name in ("AbsVal", "BNLL", "ELU", "Exp", "Log", "Swish", "Threshold"):
        assert LAYERS.get(name).bottom_range == LAYERS.get(name).top_range == (1, 1)
        with pytest.raises(LayerError, match="takes exactly 1 bottom blobs; the prototxt gives 2"):
            set_up_layer(f'type: "{name}"', [np.zeros(3), np.zeros(3)])

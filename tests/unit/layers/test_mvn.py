from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

SHAPES = [(2, 3, 4, 5), (1, 1, 1, 6), (3, 2, 4), (2, 1, 3, 1), (4, 5), (3,)]


def layer(fields: str = "") -> str:
    return f'type: "MVN" bottom: "x" mvn_param {{ {fields} }}'


@pytest.mark.parametrize("name", golden_names("mvn"))
def test_golden(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("mvn")) == 2


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        "eps: 0.5",
        "eps: 1e-4 across_channels: true",
        "across_channels: true eps: 0.1",
        "normalize_variance: false",
        "normalize_variance: false across_channels: true",
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(shape: tuple[int, ...], fields: str, in_place: bool) -> None:
    count = int(np.prod(shape[1:] if "across" in fields else shape[2:]))
    if count < 3 and "variance: false" not in fields:
        return  # of one or two values y does not depend on x but for its sign: see below
    x = np.random.default_rng(0).normal(size=shape)
    if in_place and len(shape) < 4:
        x = x.reshape(*shape, *(1,) * (4 - len(shape)))
    check_gradient(layer(fields), [x], in_place=in_place)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 3, 1), (3, 4, 2), (2, 5)])
def test_values(shape: tuple[int, ...], across: bool) -> None:
    x = np.random.default_rng(1).normal(size=shape) * 3 + 2
    (y,) = set_up_layer(layer(f"across_channels: {str(across).lower()} eps: 0.25"), [x]).forward()
    assert y.shape == (*shape, *(1,) * (4 - len(shape)))
    for place in np.ndindex(*shape[: 1 if across else 2]):
        values = x[place].reshape(-1)
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        np.testing.assert_allclose(y[place].reshape(-1), (values - mean) / (deviation + 0.25), atol=1e-12)


def test_constant_images_become_zero_and_have_finite_gradients() -> None:
    for shape in ((2, 3, 4, 4), (2, 3, 1, 1)):
        run = set_up_layer(layer(), [np.full(shape, 0.5)])
        assert not run.forward()[0].any()
        run.tops[0].diff[...] = np.random.default_rng(2).normal(size=shape)
        run.layer.backward(run.tops, [True], run.bottoms)
        assert np.isfinite(run.bottoms[0].diff).all()


def test_refuses() -> None:
    with pytest.raises(ShapeMismatchError, match=r"bottom\[0\] 'x' is \(1, 1, 1, 1, 1\); MVN takes up to 4 axes"):
        set_up_layer(layer(), [np.zeros((1, 1, 1, 1, 1))])
    with pytest.raises(LayerError, match="mvn_param.eps is -1; it must not be negative"):
        set_up_layer(layer("eps: -1"), [np.zeros((1, 1, 1, 1))])

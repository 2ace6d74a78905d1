from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.oracles import average_pool, local_response
from tests.unit.layers.golden import golden_names, run_golden_case


def layer(settings: str) -> str:
    return f'name: "norm1" type: "LRN" lrn_param {{ {settings} }}'


@pytest.mark.parametrize("name", golden_names("lrn"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name)


def test_all_golden_cases_are_there() -> None:
    assert len(golden_names("lrn")) >= 2


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 1, 1, 1), "local_size: 1"),
        ((2, 7, 3, 2), "local_size: 5 alpha: 0.5 k: 2"),
        ((2, 2, 3, 4), "local_size: 7 alpha: 2 beta: 0.5"),
        ((2, 4, 3, 3), "local_size: 3 alpha: 0.3 beta: 1.25 k: 1"),
    ],
)
def test_gradients(shape: tuple[int, ...], settings: str, region: str) -> None:
    bottom = np.random.default_rng(1).normal(size=shape)
    check_gradient(layer(f"{settings} norm_region: {region}"), [bottom])


def test_across_channels_of_any_number_of_axes() -> None:
    for shape in ((3, 6), (2, 5, 3), (1, 4, 2, 2, 2)):
        bottom = np.random.default_rng(2).normal(size=shape)
        (top,) = set_up_layer(layer("local_size: 3 alpha: 0.7 beta: 0.6 k: 1.5"), [bottom]).forward()
        np.testing.assert_allclose(top, local_response(bottom, 3, 0.7, 0.6, 1.5), rtol=1e-6)


def test_within_channel_by_the_formula() -> None:
    bottom = np.random.default_rng(3).normal(size=(2, 3, 5, 4))
    (top,) = set_up_layer(layer("local_size: 3 alpha: 0.7 beta: 0.6 norm_region: WITHIN_CHANNEL"), [bottom]).forward()
    mean, _ = average_pool(bottom**2, (5, 4), (3, 3), (1, 1), (1, 1))
    np.testing.assert_allclose(top, bottom * (1 + 0.7 * mean) ** -0.6, rtol=1e-6)


def test_reshape_between_passes() -> None:
    run = set_up_layer(layer("local_size: 3"), [np.ones((2, 3, 4, 4))])
    run.forward()
    bottom = np.random.default_rng(4).normal(size=(1, 3, 2, 5))
    run.bottoms[0].reshape(*bottom.shape)
    run.bottoms[0].data[...] = bottom
    run.layer.reshape(run.bottoms, run.tops)
    np.testing.assert_allclose(run.forward()[0], local_response(bottom, 3, 1.0, 0.75, 1.0), rtol=1e-6)


def test_refuses() -> None:
    with pytest.raises(LayerError, match=r"layer 'norm1' \(LRN\): local_size is 4; it must be odd"):
        set_up_layer(layer("local_size: 4"), [np.ones((1, 3, 2, 2))])
    with pytest.raises(ShapeMismatchError, match="4 axes"):
        set_up_layer(layer("norm_region: WITHIN_CHANNEL"), [np.ones((1, 3, 2))])
    with pytest.raises(ShapeMismatchError, match="at least 2 axes"):
        set_up_layer(layer(""), [np.ones(3)])

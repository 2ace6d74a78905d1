from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case


def layer(fields: str = "input_dim: 5 num_output: 3") -> str:
    return f'type: "Embed" bottom: "i" embed_param {{ {fields} }}'


def test_golden() -> None:
    run_golden_case("embed")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (4,), (3, 5), (2, 1, 2), ()])
def test_values_and_gradient(shape: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 5, size=shape).astype(float)
    text = layer(f"input_dim: 5 num_output: 3 bias_term: {str(bias).lower()}")
    check_gradient(text, [index], propagate=[False])
    run = set_up_layer(text, [index])
    values = [rng.normal(size=(5, 3)), *[rng.normal(size=3) for _ in range(bias)]]
    for blob, value in zip(run.layer.blobs, values, strict=True):
        blob.data[...] = value
    (y,) = run.forward()
    assert y.shape == (*shape, 3)
    for place in np.ndindex(*shape):
        np.testing.assert_allclose(y[place], values[0][int(index[place])] + (values[1] if bias else 0))


def test_fillers_and_frozen_blobs() -> None:
    fillers = "weight_filler { type: 'uniform' min: 1 max: 2 } bias_filler { value: 4 }"
    run = set_up_layer(layer(f"input_dim: 2 num_output: 3 {fillers}"), [np.zeros(2)])
    assert np.all((run.layer.blobs[0].data >= 1) & (run.layer.blobs[0].data <= 2))
    assert run.layer.blobs[1].data.tolist() == [4, 4, 4]
    run.forward()
    run.tops[0].diff[...] = 1
    run.layer.param_propagate_down = [True, False]
    run.layer.backward(run.tops, [False], run.bottoms)
    assert run.layer.blobs[0].diff.tolist() == [[2, 2, 2], [0, 0, 0]]
    assert not run.layer.blobs[1].diff.any()


@pytest.mark.parametrize("value", [5, -1, 1.5, np.inf])
def test_wrong_index(value: float) -> None:
    run = set_up_layer(layer(), [np.array([0, value])])
    with pytest.raises(LayerError, match=rf"bottom\[0\] 'i': value 1 is {value:g}; .* from 0 to 4, one of the 5 rows"):
        run.forward()


def test_refuses() -> None:
    with pytest.raises(LayerError, match="embed_param.num_output must be given"):
        set_up_layer(layer("input_dim: 5"), [np.zeros(2)])
    with pytest.raises(LayerError, match="embed_param.input_dim must be given"):
        set_up_layer(layer("num_output: 5"), [np.zeros(2)])
    run = set_up_layer(layer(), [np.zeros(2)])
    with pytest.raises(LayerError, match=r"bottom\[0\] 'i' names rows and has no gradient"):
        run.layer.backward(run.tops, [True], run.bottoms)
    assert not run.layer.allow_force_backward(0)

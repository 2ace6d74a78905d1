from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer
from tests.oracles import convolve

TYPES = ["DepthwiseConvolution", "ConvolutionDepthwise"]


def depthwise_layer(fields: str, kind: str = TYPES[0]) -> str:
    return f'type: "{kind}" bottom: "x" convolution_param {{ {fields} }}'


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("fields", "shape", "stride", "pad", "dilation"),
    [
        ("num_output: 3 kernel_size: 3 pad: 1", (2, 3, 4, 5), (1, 1), (1, 1), (1, 1)),
        ("num_output: 6 kernel_h: 2 kernel_w: 3 stride: 2 group: 3", (1, 3, 5, 6), (2, 2), (0, 0), (1, 1)),
        ("num_output: 2 kernel_size: 3 dilation: 2 bias_term: false", (2, 2, 5, 6), (1, 1), (0, 0), (2, 2)),
        ("num_output: 1 kernel_size: 1", (1, 1, 1, 1), (1, 1), (0, 0), (1, 1)),
        ("num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 1", (9, 4, 3, 3), (2, 2), (1, 1), (1, 1)),
    ],
)
def test_values_and_gradient(
    fields: str, shape: tuple[int, ...], stride: list[int], pad: list[int], dilation: list[int], kind: str
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    run = set_up_layer(depthwise_layer(fields, kind), [x])
    for blob in run.layer.blobs:
        blob.data[...] = rng.normal(size=blob.shape)
    weights = run.layer.blobs[0].data
    assert weights.shape[1] == 1
    expected = convolve(x, weights, stride, pad, dilation, groups=shape[1])
    if "bias_term" not in fields:
        expected += run.layer.blobs[1].data[:, None, None]
    np.testing.assert_allclose(run.forward()[0], expected, rtol=1e-10, atol=1e-12)
    check_gradient(depthwise_layer(fields, kind), [x])


def test_wrong_settings() -> None:
    with pytest.raises(LayerError, match="group is 2, but each of the 4 channels"):
        set_up_layer(depthwise_layer("num_output: 4 kernel_size: 1 group: 2"), [np.ones((1, 4, 2, 2))])
    with pytest.raises(ShapeMismatchError, match="num_output 6"):
        set_up_layer(depthwise_layer("num_output: 6 kernel_size: 1"), [np.ones((1, 4, 2, 2))])

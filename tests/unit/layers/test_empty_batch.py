"""A batch of no images, such as a Filter that selects nothing makes, goes through the layers and adds no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.blob import Blob
from paratrain.layers.base import Layer, LayerContext, create_layer
from paratrain.net import Net
from paratrain.proto import TRAIN, LayerParameter, NetParameter, parse_prototxt

CONVOLUTION = "num_output: 4 kernel_size: 3 pad: 1"

# (type, further fields, the shape of the only top for a batch of N images of (3, 6, 6))
CASES: list[tuple[str, str, tuple[int, ...]]] = [
    ("AbsVal", "", (3, 6, 6)),
    ("ArgMax", "", (1, 1, 1)),
    ("ArgMax", "argmax_param { axis: 1 top_k: 2 }", (2, 6, 6)),
    ("ArgMax", "argmax_param { out_max_val: true }", (2, 1, 1)),
    ("BNLL", "", (3, 6, 6)),
    ("Bias", "bias_param { filler { type: 'constant' value: 1 } }", (3, 6, 6)),
    ("Clip", "clip_param { min: -1 max: 1 }", (3, 6, 6)),
    ("Convolution", f"convolution_param {{ {CONVOLUTION} }}", (4, 6, 6)),
    ("Convolution", f"convolution_param {{ {CONVOLUTION} stride: 2 }}", (4, 3, 3)),
    ("Convolution", "convolution_param { num_output: 6 kernel_size: 1 group: 3 }", (6, 6, 6)),
    ("Deconvolution", f"convolution_param {{ {CONVOLUTION} stride: 2 }}", (4, 11, 11)),
    ("Deconvolution", "convolution_param { num_output: 4 kernel_size: 1 }", (4, 6, 6)),
    ("DepthwiseConvolution", "convolution_param { num_output: 3 kernel_size: 3 pad: 1 }", (3, 6, 6)),
    ("Dropout", "", (3, 6, 6)),
    ("ELU", "", (3, 6, 6)),
    ("Exp", "", (3, 6, 6)),
    ("Flatten", "", (108,)),
    ("Im2col", "convolution_param { kernel_size: 3 }", (27, 4, 4)),
    ("InnerProduct", "inner_product_param { num_output: 5 }", (5,)),
    ("Interp", "interp_param { height: 4 width: 5 }", (3, 4, 5)),
    ("LRN", "lrn_param { local_size: 3 }", (3, 6, 6)),
    ("LRN", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }", (3, 6, 6)),
    ("Log", "", (3, 6, 6)),
    ("MVN", "", (3, 6, 6)),
    ("MVN", "mvn_param { across_channels: true }", (3, 6, 6)),
    ("MVN", "mvn_param { normalize_variance: false }", (3, 6, 6)),
    ("Normalize", "", (3, 6, 6)),
    ("Normalize", "norm_param { across_spatial: false channel_shared: false }", (3, 6, 6)),
    ("PReLU", "", (3, 6, 6)),
    ("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", (6, 6, 3)),
    ("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", (3, 3, 3)),
    ("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }", (3, 6, 6)),
    ("Pooling", "pooling_param { pool: AVE global_pooling: true }", (3, 1, 1)),
    ("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }", (3, 3, 3)),
    ("Power", "power_param { power: 2 scale: 3 shift: 1 }", (3, 6, 6)),
    ("ReLU", "", (3, 6, 6)),
    ("ReLU6", "", (3, 6, 6)),
    ("Reduction", "reduction_param { axis: 1 }", ()),
    ("Reduction", "reduction_param { axis: 1 operation: MEAN }", ()),
    ("SPP", "spp_param { pyramid_height: 2 }", (15,)),
    ("Scale", "scale_param { bias_term: true }", (3, 6, 6)),
    ("ShuffleChannel", "shuffle_channel_param { group: 3 }", (3, 6, 6)),
    ("Sigmoid", "", (3, 6, 6)),
    ("Softmax", "", (3, 6, 6)),
    ("Swish", "", (3, 6, 6)),
    ("TanH", "", (3, 6, 6)),
    ("Threshold", "", (3, 6, 6)),
    ("Tile", "tile_param { axis: 1 tiles: 2 }", (6, 6, 6)),
]


def make(kind: str, extra: str) -> Layer:
    context = LayerContext(create_backend(), TRAIN, np.float64)
    return create_layer(
        parse_prototxt(f"name: 'a' type: '{kind}' bottom: 'x' top: 'y' {extra}", LayerParameter), context
    )


def run(layer: Layer, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
    layer.forward(bottom, top)
    if layer.type not in ("ArgMax", "Threshold"):
        top[0].write_diff(None)[...] = 1
        layer.backward(top, [True], bottom)


@pytest.mark.parametrize(("kind", "extra", "wanted"), CASES, ids=[" ".join(case[:2]) for case in CASES])
def test_a_batch_of_none(kind: str, extra: str, wanted: tuple[int, ...]) -> None:
    layer = make(kind, extra)
    bottom, top = Blob((0, 3, 6, 6), np.float64), Blob((0,), np.float64)
    layer.set_up([bottom], [top])
    assert top.shape == (0, *wanted)
    run(layer, [bottom], [top])
    for blob in layer.blobs:
        assert np.all(blob.diff == 0)


@pytest.mark.parametrize(("kind", "extra", "wanted"), CASES, ids=[" ".join(case[:2]) for case in CASES])
def test_the_batches_after_a_batch_of_none_are_computed_as_ever(kind: str, extra: str, wanted: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).uniform(0.5, 1, (2, 3, 6, 6))
    results = []
    for shapes in ([0, 2], [2, 0, 2]):
        layer = make(kind, extra)
        bottom, top = Blob((shapes[0], 3, 6, 6), np.float64), Blob((0,), np.float64)
        layer.set_up([bottom], [top])
        for count in shapes:
            bottom.reshape(count, 3, 6, 6)
            bottom.write_data(None)[...] = values[:count]
            layer.reshape([bottom], [top])
            run(layer, [bottom], [top])
        assert top.shape == (2, *wanted)
        results.append(top.data.copy())
    np.testing.assert_array_equal(*results)


def test_a_network_behind_a_filter_that_selects_nothing() -> None:
    net = Net(
        parse_prototxt(
            """
            layer { name: "data" type: "Input" top: "data" top: "label" top: "chosen" input_param {
              shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } shape { dim: 2 dim: 1 dim: 1 dim: 1 } } }
            layer { name: "filter" type: "Filter" bottom: "data" bottom: "label" bottom: "chosen" top: "x" top: "y" }
            layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 4 kernel_size: 3
              weight_filler { type: "xavier" } } }
            layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" lrn_param { local_size: 3 } }
            layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
            layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 5
              weight_filler { type: "xavier" } } }
            layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
            """,
            NetParameter,
        ),
        LayerContext(create_backend(), TRAIN, np.float64),
    )
    for name, chosen, wanted in (("none", [0, 0], (0, 4, 2, 2)), ("one", [0, 1], (1, 4, 2, 2))):
        net.blobs["data"].write_data(None)[...] = 1
        net.blobs["chosen"].write_data(None).reshape(-1)[:] = chosen
        net.forward()
        net.backward()
        assert net.blobs["pool"].shape == wanted
        gradient = sum(float(np.abs(blob.diff).sum()) for layer in net.layers for blob in layer.blobs)
        assert (gradient > 0) == (name == "one")
        assert np.isfinite(net.blobs["loss"].data)
    net.close()


def test_upsampling_by_the_indices_of_no_maxima() -> None:
    layer = make("Upsample", "bottom: 'mask' upsample_param { scale: 2 }")
    bottom, top = [Blob((0, 3, 6, 6), np.float64) for _ in range(2)], [Blob((0,), np.float64)]
    layer.set_up(bottom, top)
    layer.forward(bottom, top)
    layer.backward(top, [True, False], bottom)
    assert top[0].shape == (0, 3, 12, 12)

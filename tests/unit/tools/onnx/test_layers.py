"""Layers as ONNX models, with a fixed batch and with an open one: what paratrain computes, out of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import ExportError
from paratrain.tools.onnx import to_onnx
from tests.unit.tools.onnx.running import build, compare, fill, run_net, run_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

# The layer's text, and the shapes of its bottoms for batches of n. Values are normal, positive where "+" is in front.
IMAGE = "n,4,7,6"
CASES = {
    "absval": ('type: "AbsVal"', [IMAGE]),
    "argmax items": ('type: "ArgMax" argmax_param { top_k: 3 }', [IMAGE]),
    "argmax pairs": ('type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }', [IMAGE]),
    "argmax values": ('type: "ArgMax" argmax_param { top_k: 2 axis: -2 out_max_val: true }', [IMAGE]),
    "argmax axis": ('type: "ArgMax" argmax_param { axis: 1 }', [IMAGE]),
    "axpy": ('type: "Axpy"', ["n,3,1,1", "n,3,4,5", "n,3,4,5"]),
    "axpy short": ('type: "Axpy"', ["n,3", "n,3,4,5", "n,3,4,5"]),
    "batch norm": ('type: "BatchNorm"', [IMAGE]),
    "batch norm of vectors": ('type: "BatchNorm"', ["n,5"]),
    "batch norm of numbers": ('type: "BatchNorm"', ["n"]),
    "batch norm by the batch": ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', [IMAGE]),
    "bias": ('type: "Bias" bias_param { axis: 1 num_axes: 2 }', [IMAGE]),
    "bias bottom": ('type: "Bias" bias_param { axis: 0 }', [IMAGE, "n,4"]),
    "bn": ('type: "BN"', [IMAGE]),
    "bn of segnet": ('type: "BN" top: "y" top: "m" top: "v" bn_param { scale_filler { value: 1 } }', [IMAGE]),
    "bn inference": ('type: "BN" bn_param { bn_mode: INFERENCE }', [IMAGE]),
    "bnll": ('type: "BNLL"', [IMAGE]),
    "clip": ('type: "Clip" clip_param { min: -0.5 max: 0.7 }', [IMAGE]),
    "concat": ('type: "Concat"', [IMAGE, "n,2,7,6"]),
    "concat of batches": ('type: "Concat" concat_param { axis: 0 }', [IMAGE, IMAGE]),
    "conv 1d": ('type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 2 }', ["n,4,9"]),
    "conv 2d": (
        'type: "Convolution" convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 2 pad_w: 1 '
        "dilation: 2 bias_term: false }",
        [IMAGE],
    ),
    "conv 3d": ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 stride: 2 }', ["n,3,4,5,6"]),
    "conv of axis 2": ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 3 axis: 2 }', ["n,2,3,5,6"]),
    "conv of pixels": ('type: "Convolution" convolution_param { num_output: 2 axis: -1 }', ["n,3,4"]),
    "conv twice": (
        'type: "Convolution" top: "y" top: "z" convolution_param { num_output: 2 kernel_size: 3 }',
        [IMAGE, IMAGE],
    ),
    "crop": ('type: "Crop" crop_param { axis: 2 offset: 1 offset: 2 }', [IMAGE, "n,4,3,4"]),
    "crop with the batch": ('type: "Crop" crop_param { axis: 0 offset: 0 }', [IMAGE, "n,4,3,4"]),
    "deconv": (
        'type: "Deconvolution" convolution_param { num_output: 6 group: 2 kernel_size: 3 stride: 2 pad: 1 dilation: 2 }',
        [IMAGE],
    ),
    "deconv 3d": ('type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 stride: 2 }', ["n,3,2,3,4"]),
    "depthwise": ('type: "DepthwiseConvolution" convolution_param { num_output: 8 kernel_size: 3 }', [IMAGE]),
    "dropout": ('type: "Dropout"', [IMAGE]),
    "dropout of forks": ('type: "Dropout" dropout_param { dropout_ratio: 0.3 scale_train: false }', [IMAGE]),
    "eltwise sum": ('type: "Eltwise" eltwise_param { coeff: 1 coeff: -2 coeff: 0.5 }', [IMAGE] * 3),
    "eltwise prod": ('type: "Eltwise" eltwise_param { operation: PROD }', [IMAGE] * 3),
    "eltwise max": ('type: "Eltwise" eltwise_param { operation: MAX }', [IMAGE] * 2),
    "elu": ('type: "ELU" elu_param { alpha: 0.7 lambda: 1.3 }', [IMAGE]),
    "exp": ('type: "Exp" exp_param { base: 2 scale: 0.5 shift: 0.3 }', [IMAGE]),
    "flatten": ('type: "Flatten"', [IMAGE]),
    "flatten the batch": ('type: "Flatten" flatten_param { axis: 0 end_axis: 1 }', [IMAGE]),
    "im2col": ('type: "Im2col" convolution_param { kernel_size: 3 kernel_size: 2 pad: 1 stride: 2 }', [IMAGE]),
    "inner product": ('type: "InnerProduct" inner_product_param { num_output: 5 }', [IMAGE]),
    "inner product of axis 2": (
        'type: "InnerProduct" inner_product_param { num_output: 5 axis: -2 transpose: true bias_term: false }',
        [IMAGE],
    ),
    "interp zoom": ('type: "Interp" interp_param { zoom_factor: 3 }', [IMAGE]),
    "interp down": ('type: "Interp" interp_param { height: 3 width: 1 pad_beg: -1 pad_end: -2 }', [IMAGE]),
    "interp to": ('type: "Interp"', [IMAGE, "n,1,13,11"]),
    "log": ('type: "Log" log_param { base: 10 scale: 2 shift: 3 }', ["+" + IMAGE]),
    "lrn": ('type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.6 k: 1.5 }', [IMAGE]),
    "lrn of vectors": ('type: "LRN" lrn_param { local_size: 3 alpha: 2 }', ["n,6"]),
    "lrn within": ('type: "LRN" lrn_param { local_size: 5 alpha: 2 norm_region: WITHIN_CHANNEL }', [IMAGE]),
    "lstm unit": ('type: "LSTMUnit" top: "c" top: "h"', ["1,n,3", "1,n,12", "+1,n"]),
    "mvn": ('type: "MVN"', [IMAGE]),
    "mvn across": ('type: "MVN" mvn_param { across_channels: true }', ["n,4,7"]),
    "mvn mean": ('type: "MVN" mvn_param { normalize_variance: false }', [IMAGE]),
    "normalize": ('type: "Normalize" norm_param { across_spatial: false channel_shared: false }', [IMAGE]),
    "normalize all": ('type: "Normalize"', [IMAGE]),
    "parameter": ('type: "Eltwise"', [IMAGE, IMAGE]),
    "permute": ('type: "Permute" permute_param { order: 0 order: 2 order: 3 }', [IMAGE]),
    "power": ('type: "Power" power_param { power: 1.7 scale: 2 shift: 0.5 }', ["+" + IMAGE]),
    "power 2": ('type: "Power" power_param { power: 2 shift: 0.5 }', [IMAGE]),
    "power root": ('type: "Power" power_param { power: 0.5 }', ["+" + IMAGE]),
    "power inverse": ('type: "Power" power_param { power: -1 shift: 1 }', ["+" + IMAGE]),
    "power constant": ('type: "Power" power_param { power: 3 scale: 0 shift: 2 }', [IMAGE]),
    "prelu": ('type: "PReLU"', [IMAGE]),
    "prelu shared": ('type: "PReLU" prelu_param { channel_shared: true }', ["n,4"]),
    "reduction mean": ('type: "Reduction" reduction_param { operation: MEAN axis: 1 coeff: 3 }', [IMAGE]),
    "reduction of all": ('type: "Reduction" reduction_param { operation: ASUM }', [IMAGE]),
    "reduction sumsq": ('type: "Reduction" reduction_param { operation: SUMSQ axis: -1 }', [IMAGE]),
    "relu": ('type: "ReLU" relu_param { negative_slope: -0.3 }', [IMAGE]),
    "relu6": ('type: "ReLU6" relu6_param { negative_slope: 0.2 }', [IMAGE]),
    "reshape": ('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 dim: 3 } }', [IMAGE]),
    "reshape the end": ('type: "Reshape" reshape_param { shape { dim: 2 dim: 3 } axis: -2 num_axes: 1 }', [IMAGE]),
    "scale": ('type: "Scale" scale_param { bias_term: true }', [IMAGE]),
    "scale by a number": ('type: "Scale" scale_param { num_axes: 0 bias_term: true }', [IMAGE]),
    "scale bottom": ('type: "Scale" scale_param { axis: 0 bias_term: false }', [IMAGE, "n,4"]),
    "shuffle": ('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', [IMAGE]),
    "sigmoid": ('type: "Sigmoid"', [IMAGE]),
    "slice": ('type: "Slice" top: "a" top: "b" slice_param { slice_point: 1 }', [IMAGE]),
    "softmax": ('type: "Softmax" softmax_param { axis: 2 }', [IMAGE]),
    "spp": ('type: "SPP" spp_param { pyramid_height: 3 pool: AVE }', [IMAGE]),
    "stochastic": ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }', ["+" + IMAGE]),
    "swish": ('type: "Swish" swish_param { beta: 1.7 }', [IMAGE]),
    "tanh": ('type: "TanH"', [IMAGE]),
    "threshold": ('type: "Threshold" threshold_param { threshold: 0.2 }', [IMAGE]),
    "tile": ('type: "Tile" tile_param { axis: 2 tiles: 3 }', [IMAGE]),
    "tile the batch": ('type: "Tile" tile_param { axis: 0 tiles: 2 }', [IMAGE]),
    "upsample": ('type: "Upsample" upsample_param { scale_h: 2 scale_w: 3 }', [IMAGE]),
}


def _shape(text: str, batch: int) -> tuple[int, ...]:
    return tuple(batch if size == "n" else int(size) for size in text.removeprefix("+").split(","))


def _net_text(layer: str, shapes: list[str]) -> str:
    text = ""
    for index, shape in enumerate(shapes):
        dims = " ".join(f"dim: {size}" for size in _shape(shape, 2))
        text += f'layer {{ name: "in{index}" type: "Input" top: "x{index}" input_param {{ shape {{ {dims} }} }} }}\n'
    bottoms = " ".join(f'bottom: "x{index}"' for index in range(len(shapes)))
    top = "" if "top:" in layer else 'top: "y"'
    return text + f'layer {{ name: "layer" {bottoms} {top} {layer} }}\n'


def _inputs(shapes: list[str], batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    values = {f"x{index}": random.normal(size=_shape(shape, batch)) for index, shape in enumerate(shapes)}
    return {
        name: (np.abs(value) if shape.startswith("+") else value).astype(np.float32)
        for (name, value), shape in zip(values.items(), shapes, strict=True)
    }


@pytest.mark.parametrize("batch_is_open", [False, True], ids=["fixed", "open"])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_gives_what_paratrain_computes(name: str, batch_is_open: bool) -> None:
    layer, shapes = CASES[name]
    if batch_is_open and not shapes[0].lstrip("+").startswith("n"):
        pytest.skip("its batch is not the first axis")
    net = build(_net_text(layer, shapes))
    fill(net)
    model = to_onnx(net, dynamic_batch=batch_is_open)
    for batch in (2, 3) if batch_is_open else (2,):
        inputs = _inputs(shapes, batch)
        found = run_onnx(model.data, inputs)
        assert sorted(found) == sorted(net.output_names)
        compare(run_net(net, inputs), found)


@pytest.mark.parametrize("opset", [13, 18, 20, 22, 23])
def test_the_models_of_all_opsets_say_the_same(opset: int) -> None:
    chain = [
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }',
        'type: "BatchNorm"',
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }',
        'type: "MVN"',
        'type: "Normalize"',
        'type: "Upsample"',
        'type: "Interp" interp_param { height: 9 width: 8 }',
        'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }',
        'type: "Slice" top: "b" top: "y9" slice_param { slice_point: 1 }',
        'type: "Reduction" reduction_param { operation: MEAN axis: 2 }',
    ]
    text = 'layer { name: "in" type: "Input" top: "y0" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 11 } } }\n'
    for index, layer in enumerate(chain):
        top = "" if "top:" in layer else f'top: "y{index + 1}"'
        text += f'layer {{ name: "layer{index}" bottom: "y{index}" {top} {layer} }}\n'
    net = build(text)
    fill(net)
    inputs = {"y0": np.random.default_rng(5).normal(size=(2, 3, 12, 11)).astype(np.float32)}
    compare(run_net(net, inputs), run_onnx(to_onnx(net, opset=opset).data, inputs))


def test_regions_are_pooled_as_caffe_does() -> None:
    net = build(
        _net_text(
            'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }', ["2,3,9,8", "6,5"]
        )
    )
    random = np.random.default_rng(2)
    corners = np.sort(random.integers(0, 16, (6, 2, 2)), axis=1).reshape(6, 4)
    regions = np.concatenate([random.integers(0, 2, (6, 1)), corners], axis=1).astype(np.float32)
    inputs = {"x0": random.normal(size=(2, 3, 9, 8)).astype(np.float32), "x1": regions}
    compare(run_net(net, inputs), run_onnx(to_onnx(net).data, inputs))


def test_values_go_back_to_where_the_maxima_were() -> None:
    text = _net_text('type: "Pooling" top: "p" top: "mask" pooling_param { kernel_size: 2 stride: 2 }', ["n,3,6,8"])
    text += 'layer { name: "up" type: "Upsample" bottom: "p" bottom: "mask" top: "y" upsample_param { scale: 2 } }'
    net = build(text)
    model = to_onnx(net, dynamic_batch=True, outputs=["y", "mask"])
    for batch in (2, 4):
        inputs = _inputs(["n,3,6,8"], batch)
        compare(run_net(net, inputs), run_onnx(model.data, inputs))


def test_rows_of_a_table_and_of_a_batch() -> None:
    net = build(
        _net_text('type: "Embed" embed_param { input_dim: 7 num_output: 3 }', ["n,4"])
        + 'layer { name: "in1" type: "Input" top: "x1" input_param { shape { dim: 5 } } }\n'
        + 'layer { name: "rows" type: "BatchReindex" bottom: "y" bottom: "x1" top: "z" }'
    )
    fill(net)
    inputs = {"x0": np.array([[1, 0, 6, 2], [5, 5, 3, 0]], np.float32), "x1": np.array([1, 0, 0, 1, 1], np.float32)}
    compare(run_net(net, inputs), run_onnx(to_onnx(net).data, inputs))


@pytest.mark.parametrize(
    ("layer", "shape", "reason"),
    [
        ('type: "Slice" top: "a" top: "b" slice_param { axis: 0 slice_point: 1 }', "n,4", "where it cuts depends on"),
        ('type: "Slice" top: "a" top: "b" slice_param { axis: 0 }', "n,4", "batches of 3 do not fit"),
        ('type: "LSTMUnit" top: "c" top: "h"', "1,2,3;1,2,12;1,2", "batches of 2 do not fit"),
        ('type: "ArgMax" argmax_param { axis: 0 top_k: 2 }', "n,4", "the values to choose from depends on the batch"),
    ],
)
def test_what_an_open_batch_does_not_let_say_is_refused(layer: str, shape: str, reason: str) -> None:
    net = build(_net_text(layer, shape.split(";")))
    with pytest.raises(ExportError, match=reason):
        to_onnx(net, dynamic_batch=True)

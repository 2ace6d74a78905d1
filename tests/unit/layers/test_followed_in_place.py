"""Gradients of layers whose top is written over by a layer that works in place.

Each net is the layer, then Power (scale -1.7, shift 0.3) in place on its top, then half the sum of squares as the loss,
in float64; gradients of the data and of the parameters are compared with central differences of the loss. Backward of the
layer finds values in its top that it has not written, so one that computes from its own output fails here.

Left out are those that read their top in Caffe as well, where the same net has the same wrong gradients: Sigmoid, TanH,
Exp, ELU, Swish, Softmax, LRN, MVN, Eltwise PROD with ``stable_prod_grad: false``, LSTMUnit, and layers that work in place
themselves and read what they have left there (ReLU).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.net import Net
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import distinct_values
from tests.unit.net.build import build

Array = npt.NDArray[Any]

IMAGE = (2, 2, 6, 7)
STEP = 1e-5


@dataclass(frozen=True)
class Case:
    """A layer as text, without its bottoms and tops, and what is needed to run it."""

    layer: str
    bottoms: tuple[tuple[int, ...], ...] = (IMAGE,)
    values: str = "distinct"  # or positive, or indices: those have no gradient
    phase: Any = TRAIN
    top_count: int = 1
    in_place: bool = False


def pooling(settings: str, **more: Any) -> Case:
    return Case(f'type: "Pooling" pooling_param {{ {settings} }}', **more)


def convolution(kind: str) -> Case:
    filler = 'weight_filler { type: "gaussian" std: 0.5 }'
    return Case(f'type: "{kind}" convolution_param {{ num_output: 3 kernel_size: 3 stride: 2 {filler} }}')


CASES = {
    "max, windows side by side": pooling("kernel_size: 2 stride: 2"),
    "max with a mask": pooling("kernel_size: 2 stride: 2", top_count=2),
    "max, overlapping": pooling("kernel_size: 3 stride: 2 pad: 1"),
    "max, overlapping, with a mask": pooling("kernel_size: 3 stride: 2", top_count=2),
    "max, gaps between windows": pooling("kernel_size: 2 stride: 3 round_mode: FLOOR"),
    "max, one row": pooling("kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 2"),
    "max, large windows side by side": pooling("kernel_size: 6 stride: 6", bottoms=((2, 1, 9, 12),)),
    "max, global": pooling("global_pooling: true"),
    "mean": pooling("pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    "mean, global": pooling("pool: AVE global_pooling: true"),
    "stochastic": pooling("pool: STOCHASTIC kernel_size: 3 stride: 2", values="positive"),
    "stochastic, testing": pooling("pool: STOCHASTIC kernel_size: 3 stride: 2", values="positive", phase=TEST),
    "SPP": Case('type: "SPP" spp_param { pyramid_height: 2 pool: MAX }'),
    "SPP, one level": Case('type: "SPP" spp_param { pyramid_height: 1 pool: MAX }'),
    "BNLL": Case('type: "BNLL"'),
    "BNLL in place": Case('type: "BNLL"', in_place=True),
    "Convolution": convolution("Convolution"),
    "Deconvolution": convolution("Deconvolution"),
    "InnerProduct": Case(
        'type: "InnerProduct" inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.5 } }'
    ),
    "Concat": Case('type: "Concat"', bottoms=(IMAGE, (2, 1, 6, 7))),
    "Eltwise SUM": Case('type: "Eltwise" eltwise_param { coeff: 1 coeff: -2 }', bottoms=(IMAGE, IMAGE)),
    "Eltwise MAX": Case('type: "Eltwise" eltwise_param { operation: MAX }', bottoms=(IMAGE, IMAGE)),
    "Eltwise PROD": Case('type: "Eltwise" eltwise_param { operation: PROD }', bottoms=(IMAGE, IMAGE)),
    "Scale": Case('type: "Scale" scale_param { bias_term: true filler { type: "gaussian" std: 1 } }'),
    "Scale, two bottoms": Case('type: "Scale" scale_param { axis: 0 }', bottoms=(IMAGE, (2, 2))),
    "Bias": Case('type: "Bias"'),
    "BatchNorm": Case('type: "BatchNorm"'),
    "PReLU": Case('type: "PReLU"'),
    "PReLU in place": Case('type: "PReLU"', in_place=True),
    "ReLU with a slope": Case('type: "ReLU" relu_param { negative_slope: 0.1 }'),
    "AbsVal": Case('type: "AbsVal"'),
    "Log": Case('type: "Log"', values="positive"),
    "Power": Case('type: "Power" power_param { power: 2 }'),
    "Dropout": Case('type: "Dropout"'),
    "Crop": Case('type: "Crop" crop_param { offset: 1 }', bottoms=(IMAGE, (2, 2, 4, 5))),
    "Interp": Case('type: "Interp" interp_param { height: 4 width: 9 }'),
    "Embed": Case(
        'type: "Embed" embed_param { num_output: 3 input_dim: 5 weight_filler { type: "gaussian" std: 1 } }',
        bottoms=((2, 4),),
        values="indices",
    ),
}


def make_net(case: Case) -> Net:
    """The net of a case with its inputs filled."""
    inputs = [f"x{index}" for index in range(len(case.bottoms))]
    tops = ["x0" if case.in_place else "y", "mask"][: case.top_count]
    described = [
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}'
        for name, dims in zip(inputs, (" ".join(f"dim: {n}" for n in shape) for shape in case.bottoms), strict=True)
    ]
    wires = " ".join([*(f'bottom: "{name}"' for name in inputs), *(f'top: "{name}"' for name in tops)])
    y = tops[0]
    net = build(
        "force_backward: true",
        *described,
        f'layer {{ name: "tested" {case.layer} {wires} }}',
        f'layer {{ name: "over" type: "Power" bottom: "{y}" top: "{y}" power_param {{ scale: -1.7 shift: 0.3 }} }}',
        f'layer {{ name: "sum" type: "Reduction" bottom: "{y}" top: "sum" loss_weight: 0.5'
        " reduction_param { operation: SUMSQ } }",
        phase=case.phase,
        dtype=np.float64,
    )
    rng = np.random.default_rng(3)
    for name, shape in zip(inputs, case.bottoms, strict=True):
        net.blobs[name].data[...] = make_values(case, shape, rng)
    return net


def make_values(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if case.values == "indices":
        return rng.integers(0, 5, shape).astype(np.float64)
    # A shift of a tenth of the gap for each blob, so that the maximum of two blobs has no ties either.
    values = distinct_values(shape, rng) + 0.01 * rng.integers(1, 4)
    return np.abs(values) + 0.5 if case.values == "positive" else values


@pytest.mark.parametrize("name", CASES)
def test_gradients_hold(name: str) -> None:
    case = CASES[name]
    net = make_net(case)
    inputs = {f"x{index}": net.blobs[f"x{index}"] for index in range(len(case.bottoms))}
    starts = {key: blob.data.copy() for key, blob in inputs.items()}

    def loss() -> float:
        # Inputs anew: a layer in place has written over its own.
        for key, start in starts.items():
            inputs[key].data[...] = start
        return net.forward_from_to()

    tested = net.layers[net.layer_names.index("tested")]
    learnable = [blob for blob, learns in zip(tested.blobs, tested.param_propagate_down, strict=True) if learns]
    for blob in learnable:
        blob.diff[...] = 0
    assert loss() > 0
    net.backward_from_to()
    wired = net.propagate_down[net.layer_names.index("tested")]
    checked = [(starts[key], inputs[key].diff) for key, flows in zip(inputs, wired, strict=True) if flows]
    checked += [(blob.data, blob.diff) for blob in learnable]
    assert checked
    for number, (values, diff) in enumerate(checked):
        analytic = diff.copy()
        numeric = np.empty(values.shape)
        for place in itertools.product(*map(range, values.shape)):
            kept = float(values[place])
            values[place] = kept + STEP
            above = loss()
            values[place] = kept - STEP
            numeric[place] = (above - loss()) / (2 * STEP)
            values[place] = kept
        scale = max(float(np.abs(numeric).max()), 1.0)
        np.testing.assert_allclose(analytic, numeric, rtol=1e-5, atol=1e-6 * scale, err_msg=f"{name}, array {number}")

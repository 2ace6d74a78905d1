"""BatchNorm, Scale and Bias on the simulated GPU, alone and as one with the ReLU behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.base import LayerContext
from paratrain.layers.cupy.normalization import CupyBatchNormLayer
from paratrain.net import Net
from paratrain.net.recorded import RecordedPass
from paratrain.proto import TEST, TRAIN, NetParameter, parse_prototxt
from tests.gradient_check import set_up_layer
from tests.unit.layers.cupy.passes import FORMS, check_recording, form_of, run_passes
from tests.unit.layers.cupy.products import ROUNDING
from tests.unit.layers.golden import golden_names, run_golden_case

LAYERS = {
    "batch_norm": 'type: "BatchNorm"',
    "batch_norm stored": 'type: "BatchNorm" batch_norm_param { use_global_stats: true eps: 0.01 }',
    "scale": 'type: "Scale" scale_param { filler { type: "gaussian" std: 1 } }',
    "scale bias": 'type: "Scale" scale_param { bias_term: true filler { type: "gaussian" std: 1 } }',
    "scale frozen": 'type: "Scale" param { lr_mult: 0 } scale_param { filler { type: "gaussian" std: 1 } }',
    "bias": 'type: "Bias" bias_param { filler { type: "gaussian" std: 1 } }',
}
SHAPES = [(3, 5, 4, 3), (2, 8, 5, 3), (6, 8)]


@pytest.mark.parametrize("name", golden_names("batch_norm", "scale", "bias"))
def test_agrees_with_caffe(name: str) -> None:
    made = run_golden_case(name, backend="cupy").layer
    assert type(made).__module__ == "paratrain.layers.cupy.normalization"
    assert made.is_capturable == ("two_bottoms" not in name)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer", list(LAYERS))
def test_alone(layer: str, shape: tuple[int, ...], in_place: bool, name: str) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    passes = run_passes(LAYERS[layer], [x], name, in_place=in_place)
    passes.check([0], 2.0 if "bfloat16" in name else 5.0, name)
    form = passes.run.layer.forms.found(passes.run.tops[0].data_memory, shape)
    assert form == form_of(name, shape) and passes.run.layer.is_capturable


@pytest.mark.parametrize("form", ["float32", "bfloat16 last"])
def test_recorded(form: str) -> None:
    batches = [[np.random.default_rng(seed).normal(size=(3, 8, 4, 3))] for seed in range(2)]
    check_recording(LAYERS["batch_norm"], batches, form, backend=CupyBackend())


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_factors_along_other_axes_are_the_plain_layers(axis: int) -> None:
    x = np.random.default_rng(1).normal(size=(3, 4, 5))
    passes = run_passes(f'type: "Scale" scale_param {{ axis: {axis} bias_term: true }}', [x])
    passes.check()
    assert not passes.run.layer.is_capturable


def test_statistics_of_all_ranks_are_the_plain_layers(simulated_gpu: Any) -> None:
    context = LayerContext(CupyBackend(), TRAIN, normalizes_over_ranks=True)
    run = set_up_layer('type: "BatchNorm"', [np.random.default_rng(1).normal(size=(4, 2, 3))], context=context)
    run.forward()
    assert isinstance(run.layer, CupyBatchNormLayer) and not run.layer.is_capturable


CHAIN = """
layer {{ name: "in" type: "Input" top: "data" top: "label"
  input_param {{ shape {{ dim: 4 dim: 3 dim: 7 dim: 6 }} shape {{ dim: 4 }} }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 bias_term: false weight_filler {{ type: "msra" }} }} }}
layer {{ name: "norm1" type: "BatchNorm" bottom: "conv1" top: "conv1" batch_norm_param {{ {norm} }} }}
layer {{ name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param {{ {scale} }} }}
{relu}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param {{ num_output: 4 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
RELU = 'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }'


def chain(channels: int = 8, norm: str = "", scale: str = "bias_term: true", relu: str = RELU) -> str:
    return CHAIN.format(channels=channels, norm=norm, scale=scale, relu=relu)


def make(context: LayerContext, text: str) -> Net:
    net = Net(parse_prototxt(text, NetParameter), context)
    random = np.random.default_rng(6)
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            stored = np.full(blob.shape, 1.5) if index else random.normal(size=blob.shape)
            drawn = random.normal(0.1, 0.5, size=blob.shape)
            blob.data[...] = stored if name == "norm1" else drawn
    net.blobs["data"].data[...] = random.normal(size=net.blobs["data"].shape)
    net.blobs["label"].data[...] = [0, 1, 2, 1]
    return net


def gathered(net: Net) -> dict[str, Any]:
    named = [(f"{name} {index}", blob) for name, blobs in net.params.items() for index, blob in enumerate(blobs)]
    found = {f"gradient {name}": blob.diff.copy() for name, blob in named}
    return found | {f"values {name}": blob.data.copy() for name, blob in named if name.startswith("norm")}


def agree(found: dict[str, Any], expected: dict[str, Any], limit: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        largest = max(float(np.abs(values).max()), 0.1)
        np.testing.assert_allclose(found[name], values, rtol=0, atol=limit * largest, err_msg=name)


@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize(
    ("channels", "norm", "scale", "relu"),
    [
        (8, "", "bias_term: true", RELU),
        (5, "", "bias_term: true", RELU),
        (8, "use_global_stats: true", "bias_term: true", RELU),
        (8, "", "", RELU),
        (8, "", "bias_term: true", ""),
    ],
)
def test_as_one(channels: int, norm: str, scale: str, relu: str, precision: str) -> None:
    text = chain(channels, norm, scale, relu)
    nets = [
        make(LayerContext(create_backend("numpy"), TRAIN, dtype=np.float64), text),
        make(LayerContext(CupyBackend(precision), TRAIN), text),
    ]
    losses = []
    for net in nets:
        for _ in range(2):  # gradients are written by the first pass, and added to by the second
            losses.append(net.forward_from_to())
            net.backward_from_to()
    assert losses[2:] == pytest.approx(losses[:2], rel=ROUNDING[precision] * 2)
    agree(gathered(nets[1]), gathered(nets[0]), ROUNDING[precision] * 10)
    norm_layer: Any = next(made for made in nets[1].layers if made.name == "norm1")
    assert norm_layer.is_joined and norm_layer._rectifies == bool(relu)
    if relu:
        assert norm_layer.relu.leaves_backward


def test_a_part_of_the_chain_runs_alone(simulated_gpu: Any) -> None:
    nets = [
        make(LayerContext(create_backend("numpy"), TRAIN, dtype=np.float64), chain()),
        make(LayerContext(CupyBackend(), TRAIN), chain()),
    ]
    names = [made.name for made in nets[0].layers]
    for stop, start in (("scale1", "norm1"), ("norm1", "conv1"), ("relu1", "scale1")):
        for net in nets:
            net.forward_from_to()
            net.backward_from_to(len(names) - 1, names.index(stop))
            net.backward_from_to(names.index(stop) - 1, 0)
        agree(gathered(nets[1]), gathered(nets[0]), 2e-5)
        for net in nets:  # a forward pass in two parts
            net.forward_from_to(0, names.index(start))
            net.forward_from_to(names.index(start) + 1, len(names) - 1)
            net.backward_from_to()
        agree(gathered(nets[1]), gathered(nets[0]), 2e-5)


def test_the_phase_test(simulated_gpu: Any) -> None:
    expected, found = (
        make(context, chain()).forward_from_to()
        for context in (
            LayerContext(create_backend("numpy"), TEST, dtype=np.float64),
            LayerContext(CupyBackend("tf32"), TEST),
        )
    )
    assert found == pytest.approx(expected, rel=3e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_give_the_same_bits(precision: str) -> None:
    results = []
    for _ in range(2):
        net = make(LayerContext(CupyBackend(precision), TRAIN), chain())
        for _ in range(2):
            net.forward_from_to()
            net.backward_from_to()
        results.append({name: values.tobytes() for name, values in gathered(net).items()})
    assert results[0] == results[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_that_are_recorded(precision: str) -> None:
    """First passes of an iteration and later ones have recordings of their own, in which the two buffers change places."""
    data = """layer { name: "in" type: "DummyData" top: "data" top: "label" dummy_data_param {
      shape { dim: 4 dim: 3 dim: 7 dim: 6 } shape { dim: 4 }
      data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }"""
    text = data + chain()[chain().index('layer { name: "conv1"') :]
    results = []
    for is_recorded in (False, True):
        net = make(LayerContext(CupyBackend(precision), TRAIN), text)
        recorded = RecordedPass(net) if is_recorded else None
        steps: list[dict[str, Any]] = []
        for number in range(6):
            if number % 2 == 0:
                net.clear_param_diffs()
            loss = None if recorded is None else recorded.run()
            if loss is None:
                loss = net.forward_from_to()
                net.backward_from_to()
                if recorded is not None:
                    recorded.note_pass()
            blobs = [net.blobs[name] for name in ("conv1", "conv2", "ip")]
            params = [blob for blobs in net.params.values() for blob in blobs]
            found = [blob.read_data(None).tobytes() for blob in (*blobs, *params)]
            steps.append({"loss": loss, "data": found, "diff": [blob.read_diff(None).tobytes() for blob in params]})
        assert recorded is None or len(recorded._recorded) == 2
        results.append(steps)
    assert results[0] == results[1]

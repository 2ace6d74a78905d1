"""Multiply-adds against counts made by hand, and memory against what a net really takes."""

from __future__ import annotations

import pytest

from paratrain.backends import create_backend
from paratrain.check.figures import memory, multiply_adds
from paratrain.check.nets import check_net
from paratrain.check.shapes import shape_net
from paratrain.check.table import format_count
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN, NetParameter, NetState, parse_prototxt, read_prototxt
from tests.paths import GOLDEN

CONTEXT = LayerContext(create_backend(), TRAIN, shapes_only=True)


def last_cost(shape: str, layer: str) -> int:
    dims = " ".join(f"dim: {axis}" for axis in shape.split())
    cont = " ".join(f"dim: {axis}" for axis in shape.split()[:2])
    text = (
        f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
        f'layer {{ name: "cont" type: "Input" top: "cont" input_param {{ shape {{ {cont} }} }} }}'
        f'layer {{ name: "y" top: "y" bottom: "x" {layer} }}'
    )
    shaped = shape_net(parse_prototxt(text, NetParameter), CONTEXT, {})
    assert shaped.problems == []
    return multiply_adds(shaped.layers[-1])


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ("2 6 8 8", 'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 }', 2 * 4 * 6 * 6 * (6 * 9)),
        (
            "2 6 8 8",
            'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 group: 2 }',
            2 * 4 * 36 * 3 * 9,
        ),
        (
            "2 6 8 8",
            'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 }',
            2 * 6 * 64 * 4 * 9,
        ),
        ("2 6 8 8", 'type: "InnerProduct" inner_product_param { num_output: 5 }', 2 * 5 * 6 * 64),
        ("2 6 8", 'type: "InnerProduct" inner_product_param { num_output: 5 axis: 2 transpose: true }', 2 * 6 * 5 * 8),
        ("2 6 8 8", 'type: "Scale"', 2 * 6 * 64),
        ("2 6 8 8", 'type: "ReLU"', 0),
        ("3 2 7", 'type: "LSTM" bottom: "cont" recurrent_param { num_output: 5 }', 3 * 2 * (4 * 5 * 7 + 4 * 5 * 5)),
    ],
)
def test_multiply_adds(shape: str, layer: str, expected: int) -> None:
    assert last_cost(shape, layer) == expected


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick"])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_the_memory_of_blobs_is_what_a_pass_really_takes(name: str, phase: int) -> None:
    parameter = read_prototxt(GOLDEN / "nets" / f"{name}.prototxt", NetParameter)
    net = Net(parameter, LayerContext(create_backend(), TEST if phase == TEST else TRAIN))
    net.forward_from_to()
    if phase == TRAIN:
        net.backward_from_to()
    tops = [blob for made in net.tops for blob in made]
    taken = {}
    for half in ("data_memory", "diff_memory"):
        memories = {id(getattr(blob, half)): (getattr(blob, half), blob) for blob in tops}
        # What nobody has touched takes nothing.
        taken[half] = sum(blob.count * 4 for block, blob in memories.values() if block.head.value != "uninitialized")
    report = check_net(parameter, NetState(phase=TEST if phase == TEST else TRAIN), "", given={}, history_count=2)
    assert report.problems == []
    assert report.memory.data == taken["data_memory"]
    if phase == TRAIN:
        assert report.memory.diff == taken["diff_memory"]
        assert report.memory.parameter_diff == 4 * net.parameters.count
        assert report.memory.history == 2 * report.memory.parameter_diff
        assert report.memory.total == sum(
            (report.memory.data, report.memory.diff, report.memory.parameters, report.memory.parameter_diff,
             report.memory.history, report.memory.exchange)
        )  # fmt: skip
    else:
        assert report.memory.total == report.memory.data + report.memory.parameters


def test_without_a_net_gradients_of_blobs_are_left_out() -> None:
    shaped = shape_net(NetParameter(), CONTEXT, {})
    assert memory(shaped, None, trains=True, history_count=1).total == 0


def test_counts_are_shown_with_three_digits() -> None:
    assert [format_count(n) for n in (0, 999, 1000, 999499, 1_234_567, 7_760_000_000)] == [
        "0", "999", "1 k", "999 k", "1.23 M", "7.76 G",
    ]  # fmt: skip

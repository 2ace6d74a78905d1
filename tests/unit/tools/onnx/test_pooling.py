"""Pooling of every size: Caffe's rounding, its clipped windows and its divisors, out of onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paratrain.errors import NetError
from paratrain.tools.onnx import to_onnx
from tests.unit.tools.onnx.running import build, compare, run_net, run_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["MAX", "AVE"]),
    rounding=st.sampled_from(["CEIL", "CEIL", "FLOOR"]),
    image=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    batch_is_open=st.booleans(),
    opset=st.sampled_from([13, 17, 19, 22]),
)
def test_every_pooling_agrees(
    method: str,
    rounding: str,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    batch_is_open: bool,
    opset: int,
) -> None:
    sizes = "".join(
        f"{name}_h: {values[0]} {name}_w: {values[1]} "
        for name, values in (("kernel", kernel), ("stride", stride), ("pad", pad))
    )
    mask = 'top: "mask"' if method == "MAX" else ""
    try:
        net = build(
            f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: {image[0]} '
            f'dim: {image[1]} }} }} }} layer {{ name: "pool" type: "Pooling" bottom: "x" top: "y" {mask} '
            f"pooling_param {{ pool: {method} round_mode: {rounding} {sizes} }} }}"
        )
    except NetError:  # a pad as large as the kernel, a window behind the image
        assume(False)
    inputs = {"x": np.random.default_rng(1).normal(size=(2, 3, *image)).astype(np.float32)}
    found = run_onnx(to_onnx(net, dynamic_batch=batch_is_open, opset=opset).data, inputs)
    assert len(found) == 1 + bool(mask)
    compare(run_net(net, inputs), found, 1e-5)


@pytest.mark.parametrize(
    ("settings_text", "values"),
    [
        # Of 4 pixels, windows of 3 every 2: the second reaches over the end and is divided by the 2 that are there.
        ("kernel_size: 3 stride: 2", [1 + 2 + 3, 3 + 4]),
        # With a pad of 1 the windows begin at -1 and 1; the last would begin at 3 and ends at the pad, at 5: divided by 2.
        ("kernel_size: 3 stride: 2 pad: 1", [0 + 1 + 2, 2 + 3 + 4, 4 + 0]),
    ],
)
def test_the_mean_of_a_window_over_the_edge(settings_text: str, values: list[float]) -> None:
    """Worked out by hand: the whole column is one window, so that only the width counts."""
    width = settings_text.replace("kernel_size", "kernel_w").replace("stride", "stride_w").replace("pad", "pad_w")
    pad_h = "pad_h: 0" if "pad" in width else ""
    net = build(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 1 dim: 4 } } }'
        f'layer {{ name: "pool" type: "Pooling" bottom: "x" top: "y" '
        f"pooling_param {{ pool: AVE kernel_h: 1 stride_h: 1 {pad_h} {width} }} }}"
    )
    x = np.array([[[[1, 2, 3, 4]]]], np.float32)
    divisors = [3, 2] if len(values) == 2 else [3, 3, 2]
    found = run_onnx(to_onnx(net).data, {"x": x})["y"]
    np.testing.assert_allclose(found.reshape(-1), np.array(values) / divisors, rtol=1e-6)

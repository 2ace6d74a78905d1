from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.numpy.convolution import ImagesFirst, ImagesLast, create_convolution
from paratrain.backends.numpy.scratch import Scratch
from tests.oracles import convolve, convolve_gradients


@st.composite
def geometries(draw: Any) -> ConvolutionGeometry:
    axes = draw(st.integers(1, 3))
    few = st.integers(1, 2 if axes == 3 else 3)
    groups = draw(st.integers(1, 2))
    kernel, stride, dilation = (tuple(draw(few) for _ in range(axes)) for _ in range(3))
    pad = tuple(draw(st.integers(0, 2)) for _ in range(axes))
    extent = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, pad, strict=True)]
    spatial = tuple(max(least, 1) + draw(st.integers(0, 3)) for least in extent)
    return ConvolutionGeometry(
        batch=draw(st.integers(1, 10)),
        channels=groups * draw(few),
        spatial=spatial,
        output_channels=groups * draw(few),
        kernel=kernel,
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=groups,
    )


@pytest.mark.parametrize("order", [ImagesFirst, ImagesLast])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(g=geometries())
def test_agrees_with_plain_loops(order: type[ImagesFirst] | type[ImagesLast], g: ConvolutionGeometry) -> None:
    check(order, g)


# Sizes that are cut into several groups of images, the last one smaller.
@pytest.mark.parametrize("order", [ImagesFirst, ImagesLast])
def test_groups_of_images(order: type[ImagesFirst] | type[ImagesLast], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.convolution._COLUMN_BYTES", 1)
    monkeypatch.setattr("paratrain.backends.numpy.convolution._LEAST_IMAGES_LAST", 3)
    check(order, ConvolutionGeometry(8, 2, (4, 5), 3, (2, 3), (1, 2), (1, 0), (1, 1)))


def check(order: Any, g: ConvolutionGeometry) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(g.batch, g.channels, *g.spatial))
    w = rng.normal(size=(g.output_channels, g.channels // g.groups, *g.kernel))
    bias = rng.normal(size=g.output_channels)
    convolution = order(g, np.float64, Scratch())
    expected = convolve(x, w, g.stride, g.pad, g.dilation, g.groups)
    y = np.full((g.batch, g.output_channels, *g.output_spatial), np.nan)
    assert y.shape == expected.shape
    convolution.forward(x, w, None, y)
    np.testing.assert_allclose(y, expected, atol=1e-10)
    convolution.forward(x, w, bias, y)
    np.testing.assert_allclose(y, expected + bias.reshape(-1, *(1,) * len(g.spatial)), atol=1e-10)
    dy = rng.normal(size=y.shape)
    expected_dx, expected_dw = convolve_gradients(x, w, dy, g.stride, g.pad, g.dilation, g.groups)
    dx, dw, db = np.full(x.shape, np.nan), np.ones(w.shape), np.ones(bias.shape)
    convolution.backward_data(dy, w, dx)
    convolution.backward_weights(x, dy, dw)
    convolution.backward_bias(dy, db)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-10)
    np.testing.assert_allclose(dw, expected_dw + 1, atol=1e-10)
    np.testing.assert_allclose(db, dy.sum(axis=(0, *range(2, dy.ndim))) + 1, atol=1e-10)


def test_same_bits_each_time_and_no_new_scratch() -> None:
    rng = np.random.default_rng(1)
    for size in (8, 30):
        g = ConvolutionGeometry(16, 3, (size, size), 5, (3, 3), (1, 1), (1, 1), (1, 1))
        scratch = Scratch()
        convolution = create_convolution(g, np.float32, scratch)
        x = rng.normal(size=(16, 3, size, size)).astype(np.float32)
        w = rng.normal(size=(5, 3, 3, 3)).astype(np.float32)
        results, sizes = [], []
        for _ in range(2):
            y, dx, dw = np.empty((16, 5, size, size), np.float32), np.empty_like(x), np.zeros_like(w)
            convolution.forward(x, w, None, y)
            convolution.backward_weights(x, y, dw)
            convolution.backward_data(y, w, dx)
            results.append((y, dx, dw))
            sizes.append(scratch.size_bytes)
        assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
        assert sizes[0] == sizes[1] > 0

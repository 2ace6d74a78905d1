from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends import create_backend
from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.numpy.depthwise import DepthwiseConvolution
from paratrain.backends.numpy.scratch import Scratch
from tests.oracles import convolve, convolve_gradients


@st.composite
def geometries(draw: Any) -> ConvolutionGeometry:
    kernel, stride, dilation, pad = (
        (draw(st.integers(least, least + 2)), draw(st.integers(least, least + 2))) for least in (1, 1, 1, 0)
    )
    extent = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, pad, strict=True)]
    spatial = tuple(max(least, 1) + draw(st.integers(0, 3)) for least in extent)
    channels = draw(st.integers(2, 5))
    return ConvolutionGeometry(
        draw(st.integers(1, 4)), channels, spatial, channels, kernel, stride, pad, dilation, channels
    )


def check(g: ConvolutionGeometry) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(g.batch, g.channels, *g.spatial)), rng.normal(size=(g.channels, 1, *g.kernel))
    bias = rng.normal(size=g.channels)
    convolution = DepthwiseConvolution(g, np.float64, Scratch())
    expected = convolve(x, w, g.stride, g.pad, g.dilation, g.groups)
    y = np.full((g.batch, g.channels, *g.output_spatial), np.nan)
    convolution.forward(x, w, None, y)
    np.testing.assert_allclose(y, expected, atol=1e-10)
    convolution.forward(x, w, bias, y)
    np.testing.assert_allclose(y, expected + bias[:, None, None], atol=1e-10)
    dy = rng.normal(size=y.shape)
    expected_dx, expected_dw = convolve_gradients(x, w, dy, g.stride, g.pad, g.dilation, g.groups)
    dx, dw, db = np.full(x.shape, np.nan), np.ones(w.shape), np.ones(bias.shape)
    convolution.backward_data(dy, w, dx)
    convolution.backward_weights(x, dy, dw)
    convolution.backward_bias(dy, db)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-10)
    np.testing.assert_allclose(dw, expected_dw + 1, atol=1e-10)
    np.testing.assert_allclose(db, dy.sum(axis=(0, 2, 3)) + 1, atol=1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(g=geometries())
def test_agrees_with_plain_loops(g: ConvolutionGeometry) -> None:
    check(g)


@pytest.mark.parametrize("planes", [1, 2, 3, 7])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_groups_of_images_and_of_channels(
    planes: int, stride: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.depthwise._GROUP_BYTES", planes * 6 * 7 * 8)
    check(ConvolutionGeometry(5, 3, (4, 5), 3, (3, 2), stride, (1, 1), (1, 1), 3))


def test_which_geometries_it_takes() -> None:
    def kind(channels: int, outputs: int, groups: int, axes: int = 2) -> type:
        sizes = [(n,) * axes for n in (4, 3, 1, 1, 1)]
        g = ConvolutionGeometry(2, channels, sizes[0], outputs, *sizes[1:], groups)
        return type(create_backend("numpy").convolution(g, np.float32))

    assert kind(6, 6, 6) is DepthwiseConvolution
    for other in ((6, 12, 6), (6, 6, 3), (1, 1, 1), (6, 6, 6, 3)):
        assert kind(*other) is not DepthwiseConvolution


def test_planes_that_hold_no_number_stay_apart() -> None:
    """What one call leaves in the scratch memory must not reach the next: a NaN times 0 would."""
    g = ConvolutionGeometry(2, 3, (5, 4), 3, (3, 3), (1, 1), (1, 1), (1, 1), 3)
    scratch = Scratch()
    convolution = DepthwiseConvolution(g, np.float32, scratch)
    x, w = np.ones((2, 3, 5, 4), np.float32), np.ones((3, 1, 3, 3), np.float32)
    y, dw = np.empty_like(x), np.zeros_like(w)
    convolution.forward(np.full_like(x, np.nan), w, None, y)
    convolution.forward(x, w, None, y)
    assert np.isfinite(y).all()
    assert y[0, 0, 2].tolist() == [6, 9, 9, 6]
    convolution.backward_data(np.full_like(x, np.nan), w, y)
    convolution.backward_weights(x, x, dw)
    assert dw[0, 0].tolist() == [[12 * 2, 16 * 2, 12 * 2], [15 * 2, 20 * 2, 15 * 2], [12 * 2, 16 * 2, 12 * 2]]

from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.numpy.im2col import NumpyIm2col
from paratrain.backends.numpy.scratch import Scratch
from tests.oracles import convolve, convolve_gradients


# A convolution with the unit vectors as kernels is what copies windows to columns.
@pytest.mark.parametrize("column_bytes", [1, 1 << 20])
@pytest.mark.parametrize("pad", [(0, 0), (1, 2)])
def test_agrees_with_plain_loops(column_bytes: int, pad: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paratrain.backends.numpy.convolution._COLUMN_BYTES", column_bytes)
    stride, dilation, kernel = (2, 1), (1, 2), (2, 3)
    g = ConvolutionGeometry(5, 2, (4, 7), 1, kernel, stride, pad, dilation)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2, 4, 7))
    units = np.eye(12).reshape(12, 2, *kernel)
    expected = convolve(x, units, stride, pad, dilation)
    im2col = NumpyIm2col(g, np.float64, Scratch())
    columns = np.full(expected.shape, np.nan)
    im2col.forward(x, columns)
    np.testing.assert_array_equal(columns, expected)
    dy = rng.normal(size=columns.shape)
    dx = np.full(x.shape, np.nan)
    im2col.backward(dy, dx)
    np.testing.assert_allclose(dx, convolve_gradients(x, units, dy, stride, pad, dilation)[0], atol=1e-12)

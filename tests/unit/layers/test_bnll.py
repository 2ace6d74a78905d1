"""What BNLL's gradient does far from 0; see also test_neuron_layers.py and test_followed_in_place.py."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from tests.gradient_check import set_up_layer


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_is_exact_far_from_zero_whatever_the_top_holds(dtype: type, in_place: bool) -> None:
    x = [-1000.0, -80.0, -30.0, -1.0, 0.0, 1.0, 30.0, 50.0, 80.0, 1000.0]
    run = set_up_layer('type: "BNLL"', [x], dtype=dtype, in_place=in_place)
    run.forward()
    run.tops[0].data[...] = np.nan
    run.tops[0].diff[...] = 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.layer.backward(run.tops, [True], run.bottoms)
    expected = [2 / (1 + math.exp(-value)) if value > -700 else 0.0 for value in x]
    np.testing.assert_allclose(run.bottoms[0].diff, expected, rtol=10 * float(np.finfo(dtype).eps), atol=0)

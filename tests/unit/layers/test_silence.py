from __future__ import annotations

import numpy as np

from tests.gradient_check import set_up_layer
from tests.unit.layers.golden import run_golden_case


def test_golden() -> None:
    run_golden_case("silence")


def test_gradients_are_zero_where_wanted() -> None:
    run = set_up_layer('type: "Silence"', [np.ones((2, 3)), np.ones(4)], top_count=0)
    for blob in run.bottoms:
        blob.diff[...] = 7
    assert run.forward() == []
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert np.all(run.bottoms[0].diff == 0)
    assert np.all(run.bottoms[1].diff == 7)

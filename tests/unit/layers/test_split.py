from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case


def test_golden() -> None:
    run_golden_case("split")


@pytest.mark.parametrize("top_count", [1, 2, 5])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4, 5)])
def test_gradient(shape: tuple[int, ...], top_count: int) -> None:
    check_gradient('type: "Split"', [np.random.default_rng(0).normal(size=shape)], top_count=top_count)


def test_tops_are_the_bottoms_memory() -> None:
    run = set_up_layer('type: "Split"', [np.zeros((2, 3))], top_count=2)
    for shape in ((2, 3), (5, 3), (1, 3)):
        run.bottoms[0].reshape(*shape)
        run.layer.reshape(run.bottoms, run.tops)
        run.bottoms[0].data[...] = 4
        run.forward()
        for top in run.tops:
            assert top.shape == shape
            assert np.shares_memory(top.data, run.bottoms[0].data)
            assert not np.shares_memory(top.diff, run.bottoms[0].diff)
            assert np.all(top.data == 4)


def test_in_place_is_refused() -> None:
    with pytest.raises(LayerError, match="in place"):
        set_up_layer('type: "Split"', [np.zeros((2, 2))], in_place=True)

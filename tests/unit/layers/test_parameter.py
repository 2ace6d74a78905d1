from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import LayerError
from tests.gradient_check import check_gradient, set_up_layer
from tests.unit.layers.golden import run_golden_case
from tests.unit.net.build import build


def layer(shape: str) -> str:
    return f'type: "Parameter" parameter_param {{ shape {{ {shape} }} }}'


def test_golden() -> None:
    run_golden_case("parameter")


@pytest.mark.parametrize("shape", ["dim: 2 dim: 3", "dim: 1", "dim: 4 dim: 1 dim: 2", ""])
def test_gradient(shape: str) -> None:
    check_gradient(layer(shape), [])


def test_top_is_the_blob() -> None:
    run = set_up_layer(layer("dim: 2 dim: 3"), [])
    assert not run.forward()[0].any()
    run.layer.blobs[0].data[...] = [[1, 2, 3], [4, 5, 6]]
    assert run.tops[0].data.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_learns_within_a_net_that_moves_its_parameters() -> None:
    net = build(
        """
        layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 3 } } }
        layer { name: "r" type: "Reduction" bottom: "w" top: "l" reduction_param { operation: SUMSQ } loss_weight: 1 }
        """
    )
    net.params["p"][0].data[...] = [1, 2, 3]
    net.forward()
    assert net.blobs["l"].data == 14
    for _ in range(2):
        net.backward()
    assert net.params["p"][0].diff.tolist() == [4, 8, 12]  # of two passes, added


def test_frozen() -> None:
    run = set_up_layer(layer("dim: 2"), [])
    run.layer.param_propagate_down = [False]
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [], [])
    assert not run.layer.blobs[0].diff.any()


def test_refuses() -> None:
    with pytest.raises(LayerError, match=r"\(Parameter\): give parameter_param"):
        set_up_layer('type: "Parameter"', [])
    with pytest.raises(LayerError, match=r"parameter_param.shape is \(2, -1\); no axis may be negative"):
        set_up_layer(layer("dim: 2 dim: -1"), [])
    with pytest.raises(LayerError, match="takes exactly 0 bottom blobs"):
        set_up_layer(layer("dim: 2"), [np.zeros(2)])

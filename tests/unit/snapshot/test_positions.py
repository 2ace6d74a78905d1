from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends import create_backend
from paratrain.errors import SnapshotError
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TRAIN, NetParameter, parse_prototxt
from paratrain.snapshot import DataPosition, TrainingState, move_to, plan_data, positions, reopen

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ crop_size: 20 }}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB {order} }} }}
layer {{ name: "flat" type: "Flatten" bottom: "data" top: "flat" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "flat" top: "ip" inner_product_param {{ num_output: 2 }} }}
"""
DUMMY = """
layer { name: "dummy" type: "DummyData" top: "x" dummy_data_param { shape { dim: 6 dim: 2 } data_filler { type: "gaussian" } } }
"""


def make_net(mnist_folder: Path, batch: int, rank: int = 0, size: int = 1, order: str = "") -> Net:
    text = NET.format(source=mnist_folder / "mnist_train_lmdb", batch=batch, order=order)
    context = LayerContext(create_backend(), TRAIN, seed=3, rank=rank, size=size)
    return Net(parse_prototxt(text, NetParameter), context)


def recorded(ranks: int, iter_size: int, batch: int, layer: str = "data") -> TrainingState:
    return TrainingState(5, 3, ranks, iter_size, [DataPosition(layer, 5 * iter_size, batch)])


class OneLayer:
    """As much of a net as a plan looks at."""

    def __init__(self, kind: str, batch: int) -> None:
        layer = type("Layer", (), {"name": "data", "type": kind, "next_batch": 0, "seek": lambda _self, _batch: None})
        self.layers = [layer()]
        self.tops = [[type("Top", (), {"shape": (batch,)})]]


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 12), st.integers(1, 8), st.booleans())
def test_a_plan_keeps_the_records_of_a_step(ranks: int, iter_size: int, batch: int, now: int, is_fixed: bool) -> None:
    net = OneLayer("DummyData" if is_fixed else "Data", batch)
    count = ranks * iter_size * batch
    possible = (ranks * iter_size) % now == 0 if is_fixed else count % now == 0
    if now == ranks or possible:
        plan = plan_data(recorded(ranks, iter_size, batch), net, now, iter_size, "p")  # type: ignore[arg-type]
        assert plan.batch_sizes["data"] * plan.iter_size * now == count
        assert not is_fixed or plan.batch_sizes["data"] == batch
        if now == ranks or (not is_fixed and (ranks * batch) % now == 0):
            assert plan.iter_size == iter_size
    else:
        with pytest.raises(
            SnapshotError, match=rf"{ranks} ranks, with {count} records in each step; {now} ranks cannot"
        ):
            plan_data(recorded(ranks, iter_size, batch), net, now, iter_size, "p")  # type: ignore[arg-type]


def test_settings_that_were_changed_are_followed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plan = plan_data(recorded(2, 1, 8), OneLayer("Data", 16), 2, 1, "p")  # type: ignore[arg-type]
    assert (plan.batch_sizes, plan.iter_size) == ({"data": 16}, 1)
    assert "p was written with 16 records in each step; the settings are others now" in caplog.text
    with caplog.at_level(logging.WARNING):
        plan_data(recorded(2, 1, 8, "else"), OneLayer("Data", 16), 4, 1, "p")  # type: ignore[arg-type]
    assert "p names no data layer of this net" in caplog.text


@pytest.mark.parametrize("order", ["", "shuffle: true", "shuffle_window: 100"])
def test_two_ranks_go_on_with_the_records_of_four(order: str, mnist_folder: Path) -> None:
    four = [make_net(mnist_folder, 2, rank, 4, order) for rank in range(4)]
    for net in four:
        for _ in range(3):
            net.forward()
    stands = positions(four[0])
    assert stands == [DataPosition("data", 3, 2, 0, f"with {order}" if order else "in order")]
    two = [make_net(mnist_folder, 2, rank, 2, order) for rank in range(2)]
    for net in two:
        net.forward()
        reopen(net, {"data": 4}, 3)
        move_to(net, stands, 4)
    # Sample k of rank r is record k * size + r of the step.
    expected = np.stack([next_batch(net) for net in four], axis=1).reshape(8, -1)
    found = np.stack([next_batch(net) for net in two], axis=1).reshape(8, -1)
    np.testing.assert_array_equal(found, expected)
    assert two[0].layers[0].parameter.data_param.batch_size == 4
    for net in (*four, *two):
        net.close()


def next_batch(net: Net) -> np.ndarray:
    net.forward()
    assert net.blobs["ip"].shape[0] == net.blobs["data"].shape[0]
    return net.blobs["data"].data.reshape(net.blobs["data"].shape[0], -1).copy()


def test_another_seed_begins_anew(mnist_folder: Path) -> None:
    net, other = make_net(mnist_folder, 4), make_net(mnist_folder, 4)
    net.context.seed = 3
    reopen(other, {}, 4)
    assert other.context.seed == other.layers[0].context.seed == 4
    assert not np.array_equal(next_batch(net), next_batch(other))  # other crops
    reopen(other, {}, 3)
    move_to(other, [DataPosition("data", 1, 4)], 1)
    np.testing.assert_array_equal(next_batch(other), next_batch(net))
    net.close()
    other.close()


def test_a_batch_that_does_not_divide_begins_a_little_before(
    mnist_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = make_net(mnist_folder, 4)
    with caplog.at_level(logging.WARNING):
        move_to(net, [DataPosition("data", 5, 3)], 1)
    assert net.layers[0].next_batch == 3  # type: ignore[attr-defined]
    assert "Layer 'data' reads 3 records again" in caplog.text
    move_to(net, [DataPosition("else", 5, 3)], 1)
    assert "Layer 'data' is not in the snapshot: it stays where it is" in caplog.text
    net.close()


def test_another_order_than_that_of_the_snapshot_is_noticed(
    mnist_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    orders = ["", "shuffle: true", "shuffle_window: 100"]
    for then in orders:
        for now in orders:
            written, net = make_net(mnist_folder, 4, order=then), make_net(mnist_folder, 4, order=now)
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                move_to(net, positions(written), 1)
            assert ("Layer 'data' reads its records" in caplog.text) == (then != now)
            assert then == now or f"{now or 'in order'}, and read them" in caplog.text
            written.close()
            net.close()


def test_made_up_data_goes_on() -> None:
    context = LayerContext(create_backend(), TRAIN, seed=3)
    straight, resumed = (Net(parse_prototxt(DUMMY, NetParameter), context) for _ in range(2))
    for _ in range(3):
        straight.forward()
    move_to(resumed, positions(straight), 1)
    straight.forward()
    resumed.forward()
    np.testing.assert_array_equal(resumed.blobs["x"].data, straight.blobs["x"].data)

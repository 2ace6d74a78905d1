"""Nets that do not fit into memory are refused before it is taken."""

from __future__ import annotations

import pytest

from paratrain.blob import limits
from paratrain.errors import NetError
from paratrain.proto import TEST, TRAIN
from tests.unit.net.build import build

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 9000 } } }'
LARGE = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
    inner_product_param { num_output: 100 bias_term: false } }"""  # 3.43 MiB
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _ask_for_small_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_LEAST_ASKED_BYTES", 0)


def test_training_needs_room_for_gradients_and_testing_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: 7 * MIB)
    build(INPUT, LARGE, phase=TEST)
    build(INPUT, LARGE, phase=TRAIN)
    monkeypatch.setattr(limits, "available_bytes", lambda: 6 * MIB)
    build(INPUT, LARGE, phase=TEST)
    with pytest.raises(
        NetError, match=r"the parameters of network '', 3.43 MiB, and their gradients would take 6.87 MiB"
    ):
        build(INPUT, LARGE, phase=TRAIN)


def test_blobs_that_share_memory_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_bytes", lambda: 7 * MIB)
    data = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1000000 } } }'  # 3.81 MiB
    uses = [f'layer {{ name: "s{i}" type: "Silence" bottom: "x" }}' for i in range(4)]
    net = build(data, *uses, phase=TEST)
    assert len(net.blobs) == 5
    with pytest.raises(NetError, match=r"the data of the 2 blobs .* would take 7.63 MiB"):
        build(data, *uses, 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', phase=TEST)

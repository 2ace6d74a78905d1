from __future__ import annotations

import pytest

from paratrain.errors import SolverError
from paratrain.proto import TRAIN, NetParameter, NetState, parse_prototxt
from paratrain.solvers.batches import divide_batches

NET = """
layer { name: "d" type: "Data" data_param { source: "x" batch_size: 12 } include { phase: TRAIN } }
layer { name: "d" type: "Data" data_param { source: "x" batch_size: 5 } include { phase: TEST } }
layer { name: "h" type: "HDF5Data" hdf5_data_param { source: "x" batch_size: 12 } }
layer { name: "z" type: "DummyData" dummy_data_param { shape { dim: 12 dim: 3 } num: 24 } }
"""


def net(text: str) -> NetParameter:
    parameter = parse_prototxt(text, NetParameter)
    parameter.state.MergeFrom(NetState(phase=TRAIN))
    return parameter


def test_every_batch_of_the_phase_is_divided() -> None:
    divided = divide_batches(net(NET), 3)
    assert [layer.name for layer in divided.layer] == ["d", "h", "z"]
    assert divided.layer[0].data_param.batch_size == divided.layer[1].hdf5_data_param.batch_size == 4
    dummy = divided.layer[2].dummy_data_param
    assert (list(dummy.shape[0].dim), list(dummy.num)) == ([4, 3], [8])


@pytest.mark.parametrize(
    ("text", "ranks", "parts"),
    [
        (NET, 5, ["layer 'd' (Data): batch_size is 12, which 5 ranks cannot share", "make it 10 or 15"]),
        (NET.replace("12", "2"), 5, ["make it 5,"]),
        ('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }', 2, ["it has no such layer"]),
    ],
)
def test_batches_that_cannot_be_divided(text: str, ranks: int, parts: list[str]) -> None:
    with pytest.raises(SolverError) as raised:
        divide_batches(net(text), ranks)
    for part in parts:
        assert part in str(raised.value)

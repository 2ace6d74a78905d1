from __future__ import annotations

import pytest

from paratrain.errors import SolverError
from paratrain.proto import TRAIN, NetParameter, NetState, parse_prototxt
from paratrain.solvers.batches import divide_batches, plan_passes, share_batches

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


def records(parameter: NetParameter, rank_count: int, passes: int) -> list[int]:
    """Of each batch, the records of a step of all ranks."""
    sizes = [layer.data_param.batch_size or layer.hdf5_data_param.batch_size for layer in parameter.layer[:2]]
    sizes += parameter.layer[2].dummy_data_param.num
    return [size * rank_count * passes for size in sizes]


@pytest.mark.parametrize(
    ("planned", "ranks", "passes", "chosen"),
    [(4, 4, 1, 1), (4, 2, 1, 1), (4, 3, 1, 1), (2, 3, 3, 3), (4, 8, 3, 3), (1, 12, 5, 5), (1, 24, 2, 1), (5, 4, 4, 4)],
)
def test_a_step_has_the_same_records_on_any_number_of_ranks(planned: int, ranks: int, passes: int, chosen: int) -> None:
    found = plan_passes(net(NET), planned, ranks, passes)
    assert found == chosen
    shared = share_batches(net(NET), planned, ranks, passes, found)
    assert records(shared, ranks, found) == [size * planned * passes for size in (12, 12, 24)]


def test_passes_change_where_batches_cannot() -> None:
    python = 'layer { name: "p" type: "Python" top: "x" python_param { module: "m" layer: "L" } }'
    assert plan_passes(net(python + NET), 4, 2, 3) == 6
    assert plan_passes(net(python), 4, 2, 1) == 2
    shared = share_batches(net(python + NET), 4, 2, 3, 6)
    assert shared.layer[1].data_param.batch_size == 12
    with pytest.raises(SolverError, match="whose batches cannot be changed, cannot be shared evenly by 3 ranks"):
        plan_passes(net(python), 4, 3, 1)
    with pytest.raises(SolverError, match=r"48 and 96 records, cannot be shared evenly by 5 ranks"):
        plan_passes(net(NET), 4, 5, 1)

"""HDF5Data and HDF5Output."""

from __future__ import annotations

import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.data import hdf5_records
from paratrain.errors import DataError, LayerError, MissingDependencyError, ShapeMismatchError
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST, TRAIN, NetParameter
from tests.gradient_check import LayerRun, set_up_layer
from tests.paths import DATA, GOLDEN

h5py = pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")


def set_up(text: Any, phase: Any = TRAIN, **context: Any) -> LayerRun:
    return set_up_layer(text, [], context=LayerContext(create_backend(), phase, **{"dtype": np.float32, **context}))


def test_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA / "images")
    (parameter,) = text_format.Parse((GOLDEN / "data" / "hdf5.prototxt").read_text(), NetParameter()).layer
    run = set_up(parameter, TEST)
    with np.load(GOLDEN / "data" / "hdf5.npz") as expected:
        for batch in range(4):
            for top, values in zip(parameter.top, run.forward(), strict=True):
                assert values.shape == expected[f"{batch}/{top}"].shape
                np.testing.assert_array_equal(values, expected[f"{batch}/{top}"])


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """A list of files of 4, 1 and 5 rows, whose labels are 0 to 9 and whose data (rows, 2) are 10 times as much."""
    start = 0
    for index, count in enumerate((4, 1, 5)):
        labels = np.arange(start, start + count)
        with h5py.File(tmp_path / f"{index}.h5", "w") as file:
            file["label"] = labels  # whole numbers become floats
            file["data"] = np.stack([labels, labels], axis=1) * 10.0
        start += count
    (tmp_path / "list.txt").write_text("\n".join(str(tmp_path / f"{index}.h5") for index in range(3)) + "\n")
    return tmp_path / "list.txt"


def data_layer(source: Path | str, rest: str = "", batch_size: int = 3, tops: str = 'top: "label" top: "data"') -> str:
    return f'type: "HDF5Data" name: "d" hdf5_data_param {{ source: "{source}" batch_size: {batch_size} {rest} }} {tops}'


def labels_of(run: LayerRun, forward_count: int) -> list[list[int]]:
    found = []
    for _ in range(forward_count):
        labels, data = run.forward()
        np.testing.assert_array_equal(data, 10 * np.stack([labels, labels], axis=1))
        found.append(labels.astype(int).tolist())
    return found


def test_batches_run_over_files_and_wrap_around(numbered: Path) -> None:
    run = set_up(data_layer(numbered))
    assert [top.shape for top in run.tops] == [(3,), (3, 2)]
    assert labels_of(run, 4) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 0, 1]]
    assert labels_of(set_up(data_layer(numbered, batch_size=23)), 1) == [[*range(10), *range(10), 0, 1, 2]]


def test_ranks_take_turns_in_training_and_read_everything_in_testing(numbered: Path) -> None:
    for size in (2, 3):
        found = [labels_of(set_up(data_layer(numbered), rank=rank, size=size), 3) for rank in range(size)]
        for rank in range(size):
            flat = [label for batch in found[rank] for label in batch]
            assert flat == [(rank + size * k) % 10 for k in range(9)]
    assert labels_of(set_up(data_layer(numbered), TEST, rank=1, size=2), 2) == [[0, 1, 2], [3, 4, 5]]


def test_shuffling_takes_every_row_once_an_epoch_file_by_file(numbered: Path) -> None:
    run = set_up(data_layer(numbered, "shuffle: true", batch_size=10), seed=5)
    epochs = [batch for (batch,) in (labels_of(run, 1) for _ in range(12))]
    files = {label: 0 if label < 4 else 1 if label == 4 else 2 for label in range(10)}
    orders = set()
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
        order = [files[label] for label in epoch]
        changes = sum(a != b for a, b in itertools.pairwise(order))
        assert changes == 2, "rows of different files do not mix"
        orders.add(tuple(dict.fromkeys(order)))
    assert len(orders) > 1, "the order of the files changes"
    assert len({tuple(label for label in epoch if label > 4) for epoch in epochs}) > 1, "so does that of the rows"
    again = set_up(data_layer(numbered, "shuffle: true", batch_size=10), seed=5)
    assert labels_of(again, 2) == epochs[:2]
    other = set_up(data_layer(numbered, "shuffle: true", batch_size=10), seed=6)
    assert [batch for (batch,) in (labels_of(other, 1) for _ in range(12))] != epochs


def test_shuffled_ranks_share_an_epoch(numbered: Path) -> None:
    whole = set_up(data_layer(numbered, "shuffle: true", batch_size=10))
    (expected,) = labels_of(whole, 1)
    parts = [
        labels_of(set_up(data_layer(numbered, "shuffle: true", batch_size=5), rank=r, size=2), 1)[0] for r in (0, 1)
    ]
    assert [label for pair in zip(*parts, strict=True) for label in pair] == expected


def test_seek_goes_on_where_another_run_stopped(numbered: Path) -> None:
    run = set_up(data_layer(numbered, "shuffle: true"))
    labels = labels_of(run, 6)
    assert run.layer.next_batch == 6
    resumed = set_up(data_layer(numbered, "shuffle: true"))
    resumed.layer.seek(4)
    assert labels_of(resumed, 2) == labels[4:]


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
def test_the_next_file_is_read_by_a_thread_while_this_one_is_used(
    numbered: Path, shuffle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = set_up(data_layer(numbered, shuffle, batch_size=1), seed=5)
    readers: list[tuple[str, str]] = []
    load = hdf5_records.open_hdf5

    def open_hdf5(path: str, mode: str) -> Any:
        readers.append((Path(path).stem, threading.current_thread().name))
        return load(path, mode)

    monkeypatch.setattr(hdf5_records, "open_hdf5", open_hdf5)
    labels = []
    for _ in range(30):
        labels += labels_of(run, 1)[0]
        for thread in threading.enumerate():
            if thread.name == "paratrain-hdf5":
                thread.join()
    files = [label for label, _ in itertools.groupby(0 if label < 4 else 1 if label == 4 else 2 for label in labels)]
    found = [int(file) for file, _ in readers]
    # In their order, one file ahead, unless it is the one that was used before this one, and still there.
    expected = [file for i, file in enumerate(files) if i < 2 or file != files[i - 2]]
    assert found[: len(expected)] == expected
    assert len(found) <= len(expected) + 1
    assert [name for _, name in readers] == ["paratrain-reading"] + ["paratrain-hdf5"] * (len(readers) - 1)
    assert run.layer.wait_s > 0
    run.layer.close()


def test_large_files_are_in_memory_one_at_a_time(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_records, "_LARGE_BYTES", 50)
    run = set_up(data_layer(numbered, batch_size=1))
    held = set()
    for _ in range(11):
        run.forward()
        held.add(len(run.layer._records._files._futures))
    assert held == {1}


def test_tops_choose_the_datasets(numbered: Path) -> None:
    run = set_up(data_layer(numbered, tops='top: "data"'), dtype=np.float64)
    (data,) = run.forward()
    assert (data.dtype, data.shape) == (np.float64, (3, 2))


def make(path: Path, **datasets: Any) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, values in datasets.items():
            file[name] = values
    path.write_text(f"{path.with_suffix('.h5')}\n")
    return path


def test_data_that_cannot_be(tmp_path: Path) -> None:
    zeros = np.zeros((4, 2))
    for source, message in [
        ("", r"layer 'd' \(HDF5Data\): hdf5_data_param.source.* is missing"),
        (tmp_path / "nowhere.txt", r"nowhere.txt: no such file \(looked up from"),
        (make(tmp_path / "a", label=np.zeros(4)), r"a.h5: has no dataset 'data' .*it has label"),
        (make(tmp_path / "b", label=np.zeros(5), data=zeros), r"b.h5: 'label' has 5 rows, 'data' 4"),
        (make(tmp_path / "c", label=np.float32(3), data=zeros), "c.h5: 'label' has no rows"),
        (make(tmp_path / "d", label=[b"x"] * 4, data=zeros), r"d.h5: 'label': holds values of type .*expected integers"),
        (make(tmp_path / "e", label=np.zeros(0), data=np.zeros((0, 2))), "e: the files it lists hold no rows"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=message):
            set_up(data_layer(source))
    (tmp_path / "list.txt").write_text("")
    with pytest.raises(DataError, match="list.txt: lists no files"):
        set_up(data_layer(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_text(str(tmp_path / "text.h5"))
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(DataError, match="text.h5: is not an HDF5 file"):
        set_up(data_layer(tmp_path / "list.txt"))
    make(tmp_path / "f", label=np.zeros(4), data=zeros)
    make(tmp_path / "g", label=np.zeros(4), data=np.zeros((4, 3)))
    (tmp_path / "list.txt").write_text(f"{tmp_path}/f.h5 {tmp_path}/g.h5")
    with pytest.raises(DataError, match=r"g.h5: rows of 'data' have shape \(3,\); in .*f.h5 they have \(2,\)"):
        set_up(data_layer(tmp_path / "list.txt"))
    with pytest.raises(LayerError, match="no batch_size"):
        set_up(data_layer(tmp_path / "list.txt", batch_size=0))
    with pytest.raises(LayerError, match="does not transform data"):
        set_up(data_layer(tmp_path / "list.txt") + " transform_param { scale: 2 }")


def test_without_h5py(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'paratrain\[hdf5\]'"):
        set_up(data_layer(numbered))


# -- HDF5Output


def output_layer(path: Path | str) -> str:
    return f'type: "HDF5Output" name: "o" bottom: "data" bottom: "label" hdf5_output_param {{ file_name: "{path}" }}'


def test_output_holds_what_passed_and_can_be_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data, labels = rng.normal(size=(6, 3, 2)).astype(np.float32), np.arange(6.0)
    run = set_up_layer(output_layer(tmp_path / "out.h5"), [data[:4], labels[:4]], top_count=0, dtype=np.float32)
    assert not (tmp_path / "out.h5").exists(), "setting a layer up writes nothing"
    run.forward()
    with h5py.File(tmp_path / "out.h5", "r") as file:  # what is written can be read while the net goes on
        assert (file["data"].shape, file["label"].shape) == ((4, 3, 2, 1), (4, 1, 1, 1))
    for blob, values in zip(run.bottoms, (data[4:], labels[4:]), strict=True):
        blob.reshape(*values.shape)
        blob.data[...] = values
    run.layer.reshape(run.bottoms, run.tops)
    run.forward()
    run.layer.backward([], [True, False], run.bottoms)
    assert not run.bottoms[0].diff.any()
    run.layer.close()
    run.layer.close()
    with h5py.File(tmp_path / "out.h5", "r") as file:
        assert sorted(file) == ["data", "label"]
        assert file["data"].dtype == np.float32
        np.testing.assert_array_equal(file["data"][..., 0], data)
        np.testing.assert_array_equal(file["label"][:, 0, 0, 0], labels)
    (tmp_path / "list.txt").write_text(str(tmp_path / "out.h5"))
    again = set_up(data_layer(tmp_path / "list.txt", batch_size=6, tops='top: "data"'))
    np.testing.assert_array_equal(again.forward()[0][..., 0], data)


def test_each_rank_writes_a_file_of_its_own(tmp_path: Path) -> None:
    for rank in range(2):
        context = LayerContext(create_backend(), TRAIN, rank=rank, size=2)
        run = set_up_layer(
            output_layer(tmp_path / "out.h5"), [np.full((2, 1), rank), [0, 0]], top_count=0, context=context
        )
        run.forward()
        run.layer.close()
    for rank, name in enumerate(("out.h5", "out.h5.rank1")):
        with h5py.File(tmp_path / name, "r") as file:
            assert file["data"][:].ravel().tolist() == [rank, rank]


def test_output_that_cannot_be(tmp_path: Path) -> None:
    for path, message in [("", "no file_name"), (tmp_path / "none" / "out.h5", "there is no folder")]:
        with pytest.raises(LayerError, match=message):
            set_up_layer(output_layer(path), [np.zeros((2, 1)), np.zeros(2)], top_count=0)
    with pytest.raises(ShapeMismatchError, match=r"'data' \(2, 1\) and .*'label' \(3,\)"):
        set_up_layer(output_layer(tmp_path / "o.h5"), [np.zeros((2, 1)), np.zeros(3)], top_count=0)
    run = set_up_layer(output_layer(tmp_path / "o.h5"), [np.zeros((2, 1)), np.zeros(2)], top_count=0)
    run.forward()
    run.bottoms[0].reshape(2, 5)
    with pytest.raises(DataError, match=r"layer 'o' \(HDF5Output\): .*'data' has rows of \(1, 1, 1\), .*\(5, 1, 1\)"):
        run.forward()
    run.layer.close()
    (tmp_path / "folder.h5").mkdir()
    run = set_up_layer(output_layer(tmp_path / "folder.h5"), [np.zeros((2, 1)), np.zeros(2)], top_count=0)
    with pytest.raises(DataError, match=r"layer 'o' \(HDF5Output\): .*folder.h5: cannot be written"):
        run.forward()


def test_ranks_take_turns_over_the_batches_of_a_test(numbered: Path) -> None:
    text = f'name: "d" type: "HDF5Data" top: "data" hdf5_data_param {{ source: "{numbered}" batch_size: 2 }}'
    run = set_up(text, TEST)
    alone = [run.forward()[0].copy() for _ in range(6)]
    for rank in range(2):
        run = set_up(text, TEST, deal=(rank, 2))
        for batch in range(rank, 6, 2):
            np.testing.assert_array_equal(run.forward()[0], alone[batch])
            file, row = [(0, 0), (0, 2), (1, 0), (2, 1), (2, 3)][batch % 5]
            assert run.layer.last_keys()[0] == f"{numbered.parent / str(file)}.h5: row {row}"

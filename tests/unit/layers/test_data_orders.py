"""Every source over several ranks: what is read in an epoch, in which order, and how it is augmented."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.data import LmdbWriter, array_to_datum
from paratrain.data.hdf5 import open_hdf5
from paratrain.data.leveldb import load_plyvel
from paratrain.errors import MissingDependencyError
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import LayerRun, set_up_layer

COUNTS = (7, 101)


def image(number: int) -> np.ndarray:
    """Another one for each record, no two of whose pixels are alike, so that crops and mirroring show."""
    return np.random.default_rng(number).permutation(108).astype(np.uint8).reshape(3, 6, 6)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each kind of source with each count of records, whose labels are their numbers."""
    folder = tmp_path_factory.mktemp("sources")
    for count in COUNTS:
        with LmdbWriter(folder / f"{count}_lmdb") as database:
            for i in range(count):
                database.put(b"%08d" % i, array_to_datum(image(i), i).SerializeToString())
    return folder


def lmdb(folder: Path, count: int) -> str:
    return f'type: "Data" data_param {{ source: "{folder}/{count}_lmdb" backend: LMDB %s }}'


def leveldb(folder: Path, count: int) -> str:
    try:
        plyvel = load_plyvel()
    except MissingDependencyError:
        pytest.skip("no plyvel is installed (the extra 'leveldb')")
    if not (folder / f"{count}_leveldb").exists():
        with plyvel.DB(f"{folder}/{count}_leveldb", create_if_missing=True) as database:
            for i in range(count):
                database.put(b"%08d" % i, array_to_datum(image(i), i).SerializeToString())
    return f'type: "Data" data_param {{ source: "{folder}/{count}_leveldb" backend: LEVELDB %s }}'


def image_list(folder: Path, count: int) -> str:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    for i in range(count):
        if not (folder / f"{i}.png").exists():
            assert cv2.imwrite(f"{folder}/{i}.png", image(i).transpose(1, 2, 0))
    (folder / f"{count}.txt").write_text("".join(f"{i}.png {i}\n" for i in range(count)))
    return f'type: "ImageData" image_data_param {{ source: "{folder}/{count}.txt" root_folder: "{folder}/" %s }}'


def hdf5(folder: Path, count: int) -> str:
    """Four files, of which one has no rows and one has one."""
    pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")
    stops = [0, count // 2, count // 2, count // 2 + 1, count]
    paths = [folder / f"{count}_{number}.h5" for number in range(4)]
    for path, (start, stop) in zip(paths, itertools.pairwise(stops), strict=True):
        if not path.exists():
            with open_hdf5(path, "w") as file:
                file["label"] = np.arange(start, stop)
                file["data"] = np.array([image(i) for i in range(start, stop)]).reshape(stop - start, 3, 6, 6)
    (folder / f"{count}_hdf5.txt").write_text("\n".join(map(str, paths)))
    return f'type: "HDF5Data" hdf5_data_param {{ source: "{folder}/{count}_hdf5.txt" %s }}'


SOURCES = {"LMDB": lmdb, "LevelDB": leveldb, "ImageData": image_list, "HDF5Data": hdf5}


def set_up(text: str, phase: Any = TRAIN, **context: Any) -> LayerRun:
    text = f'name: "d" top: "data" top: "label" {text}'
    return set_up_layer(text, [], context=LayerContext(create_backend("numpy"), phase, dtype=np.float32, **context))


def read(run: LayerRun, batch_count: int) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of so many batches, (batches, N, ...)."""
    batches = [[top.copy() for top in run.forward()] for _ in range(batch_count)]
    data, labels = (np.stack(tops) for tops in zip(*batches, strict=True))
    run.layer.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("paratrain")] == []
    return data, labels.astype(int)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("kind", "order"),
    [
        (kind, order)
        for kind in SOURCES
        for order in ("", "shuffle: true", "shuffle_window: 48")
        if (kind, order) != ("HDF5Data", "shuffle_window: 48")  # files are windows already
    ],
)
def test_ranks_read_together_what_one_reads(kind: str, order: str, count: int, sources: Path) -> None:
    """In order: the documented order. Shuffled: every record once in each of two epochs. Images belong to their labels."""
    text = SOURCES[kind](sources, count)
    found = []
    for size in (1, 2, 3, 5):
        batches = -(-2 * count // (2 * size))
        runs = [set_up(text % f"batch_size: 2 {order}", rank=rank, size=size, seed=5) for rank in range(size)]
        dealt = [read(run, batches) for run in runs]
        # Sample k of rank r is record k * size + r of the sequence.
        labels = np.stack([labels.reshape(-1) for _, labels in dealt], axis=1).reshape(-1)
        data = np.stack([data.reshape(-1, 3, 6, 6) for data, _ in dealt], axis=1).reshape(-1, 3, 6, 6)
        np.testing.assert_array_equal(data, [image(label) for label in labels])
        found.append(labels[: 2 * count].tolist())
    assert all(sequence == found[0] for sequence in found)
    epochs = found[0][:count], found[0][count:]
    if order:
        assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 2
        assert epochs[0] != epochs[1]
        assert list(range(count)) not in epochs
    else:
        assert epochs == (list(range(count)), list(range(count)))


@pytest.mark.parametrize("kind", ["LMDB", "LevelDB", "ImageData"])
def test_augmentation_depends_on_epoch_and_record_alone(kind: str, sources: Path) -> None:
    """Whatever the order, the number of ranks and the batch, record r of an epoch is cut and mirrored alike."""
    count, fields = 7, "transform_param { crop_size: 4 mirror: true } "
    text = SOURCES[kind](sources, count)

    def epochs(order: str, size: int) -> np.ndarray:
        runs = [set_up(fields + text % f"batch_size: 1 {order}", rank=r, size=size, seed=5) for r in range(size)]
        dealt = [read(run, 3 * count) for run in runs]
        labels = np.stack([labels[:, 0] for _, labels in dealt], axis=1).reshape(-1)[: 3 * count].reshape(3, count)
        data = np.stack([data[:, 0] for data, _ in dealt], axis=1).reshape(-1, 3, 4, 4)[: 3 * count]
        data = data.reshape(3, count, 3, 4, 4)
        return np.stack([data[epoch][np.argsort(labels[epoch])] for epoch in range(3)])

    expected = epochs("", 1)
    assert not np.array_equal(expected[0], expected[1])
    assert not np.array_equal(expected[1], expected[2])
    for order in ("", "shuffle: true", "shuffle_window: 3"):
        for size in (1, 2, 3):
            np.testing.assert_array_equal(epochs(order, size), expected)


@pytest.mark.parametrize("kind", list(SOURCES))
def test_a_resumed_run_reads_on_in_the_middle_of_a_shuffled_epoch(kind: str, sources: Path) -> None:
    """Three ranks stop after 7 batches of 4; two go on with batches of 6: 84 records of the first 101."""
    text = SOURCES[kind](sources, 101)
    one = read(set_up(text % "batch_size: 12 shuffle: true", seed=5), 20)[1].reshape(-1)
    resumed = [set_up(text % "batch_size: 6 shuffle: true", rank=rank, size=2, seed=5) for rank in range(2)]
    for run in resumed:
        run.layer.seek(7)
    labels = np.stack([read(run, 13)[1].reshape(-1) for run in resumed], axis=1).reshape(-1)
    assert labels.tolist() == one[84:].tolist()


@pytest.mark.parametrize("kind", list(SOURCES))
def test_ranks_share_the_batches_of_a_shuffled_test(kind: str, sources: Path) -> None:
    """Testing shuffles where the net says so; together the ranks score each record once."""
    text = SOURCES[kind](sources, 101) % "batch_size: 3 shuffle: true"
    alone = read(set_up(text, TEST, seed=5), 34)[1]
    assert sorted(alone.reshape(-1)[:101].tolist()) == list(range(101))
    dealt = [read(set_up(text, TEST, seed=5, rank=rank, size=2, deal=(rank, 2)), 17)[1] for rank in range(2)]
    assert np.stack(dealt, axis=1).reshape(34, 3).tolist() == alone.tolist()

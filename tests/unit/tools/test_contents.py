"""What a database, a list, an HDF5 file or a file of MNIST holds is counted, and what is damaged is named."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from paratrain.data import LmdbWriter, array_to_datum
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.contents import Contents, look_through, spread
from paratrain.tools.contents_text import contents_values, format_contents
from paratrain.tools.open_contents import open_contents
from paratrain.tools.work import Work
from tests.optional import need_leveldb, need_opencv
from tests.paths import DATA

IMAGES = DATA / "images"


def contents(path, wanted=10**9, root="", thread_count=2):
    with open_contents(str(path), str(root)) as opened:
        if isinstance(opened, Contents):
            return opened
        with Work(None, "records") as work:
            return look_through(opened, spread(len(opened), wanted), work, thread_count)


def write(path, values):
    with LmdbWriter(path) as database:
        for index, value in enumerate(values):
            database.put(b"%08d" % index, value if isinstance(value, bytes) else value.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("name", "kind", "shape", "stored_as"),
    [
        ("images_raw_lmdb", "LMDB", (3, 32, 36), "uint8"),
        ("images_raw_lmdb/data.mdb", "LMDB", (3, 32, 36), "uint8"),
        ("images_gray_lmdb", "LMDB", (1, 32, 36), "uint8"),
        ("images_png_lmdb", "LMDB", (3, 32, 36), "PNG"),
        ("images_jpg_lmdb", "LMDB", (3, 32, 36), "JPEG"),
        ("images_raw_leveldb", "LevelDB", (3, 32, 36), "uint8"),
    ],
)
def test_caffes_databases(name, kind, shape, stored_as):
    if stored_as != "uint8":
        need_opencv()
    if kind == "LevelDB":
        need_leveldb()
    found = contents(IMAGES / name)
    assert (found.kind, found.count, found.read_count) == (kind, 24, 24)
    assert found.keys == ("00000000_china/00.jpg", "00000023_flower/23.png")
    assert found.shapes == {shape: 24}
    assert found.stored_as == {stored_as: 24}
    assert found.labels == {0: 12, 1: 12}
    assert found.damaged == []
    assert found.size_bytes > 10_000


def test_a_list_of_images(tmp_path):
    need_opencv()
    shutil.copy(IMAGES / "list.txt", tmp_path / "list.txt")
    with (tmp_path / "list.txt").open("a") as stream:
        stream.write("\nmissing.jpg 5\n")
    found = contents(tmp_path / "list.txt", root=f"{IMAGES}/images/")
    assert (found.kind, found.count) == ("list of images", 25)
    assert found.shapes == {(3, 48, 64): 8, (3, 60, 50): 8, (3, 40, 40): 8}
    assert found.stored_as == {"PNG": 18, "JPEG": 6}
    assert found.labels == {0: 12, 1: 12, 5: 1}
    ((key, reason),) = found.damaged
    assert key == f"{tmp_path}/list.txt:26 missing.jpg" and "there is no image" in reason


def test_files_of_mnist():
    labels = contents(DATA / "t10k-labels-idx1-ubyte.gz")
    images = contents(DATA / "t10k-images-idx3-ubyte.gz", 500)
    assert (labels.kind, labels.count, labels.labels[1]) == ("MNIST file of labels", 10_000, 1135)
    assert (images.kind, images.count, images.read_count) == ("MNIST file of images", 10_000, 500)
    assert images.shapes == {(1, 28, 28): 500} and sum(images.labels.values()) == 500


def test_hdf5(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="no h5py is installed (the extra 'hdf5')")
    monkeypatch.chdir(IMAGES)
    one, several = contents("small.h5"), contents("small_h5.txt")
    assert (one.kind, one.count, one.damaged) == ("HDF5 file", 10, [])
    assert one.datasets == [
        ("data", (10, 3, 2, 2), "float32"),
        ("label", (10, 1), "float32"),
        ("weight", (10,), "float32"),
    ]
    with h5py.File("small.h5") as first, h5py.File("small2.h5") as second:
        expected = [Counter(int(value) for value in file["label"][:].ravel()) for file in (first, second)]
    assert one.labels == expected[0]
    assert (several.kind, several.count, several.labels) == ("list of 2 HDF5 files", 17, expected[0] + expected[1])
    assert several.datasets[3] == ("small2.h5: data", (7, 3, 2, 2), "float32")

    with h5py.File(tmp_path / "uneven.h5", "w") as file:
        file["data"], file["label"] = np.zeros((4, 2)), np.full(3, 0.5)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/uneven.h5\n{tmp_path}/missing.h5\n")
    found = contents(tmp_path / "list.txt")
    assert [key for key, _ in found.damaged] == [f"{tmp_path}/uneven.h5", f"{tmp_path}/missing.h5"]
    assert "different numbers of rows: data 4, label 3" in found.damaged[0][1]
    assert "no such file" in found.damaged[1][1]
    assert found.labels == {}


def test_hdf5_values_that_cannot_be_read_and_what_has_none(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py", reason="no h5py is installed (the extra 'hdf5')")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0).random((500, 20))
    for name in ("whole.h5", "damaged.h5"):
        with h5py.File(name, "w") as file:
            file.create_dataset("data", data=random, compression="gzip", chunks=(10, 20))
            file["label"] = np.full(500, np.inf)
            file["none"] = h5py.Empty("f")
            file["scalar"] = 3.0
            (place, *_) = (info.byte_offset for info in [file["data"].id.get_chunk_info(7)])
    content = bytearray(Path("damaged.h5").read_bytes())
    content[place : place + 200] = bytes(200)
    Path("damaged.h5").write_bytes(content)
    Path("both.txt").write_text("whole.h5 damaged.h5\n")
    found = contents("both.txt")
    assert (found.count, found.read_count, found.labels) == (1000, 500, {})
    assert [name for name, _, _ in found.datasets[:3]] == ["whole.h5: data", "whole.h5: label", "whole.h5: scalar"]
    [(file, reason)] = found.damaged
    assert file == "damaged.h5" and reason.startswith("'data' cannot be read (")

    monkeypatch.setattr("paratrain.tools.hdf5_contents._READ_UP_TO_BYTES", 1000)
    unread = contents("both.txt")
    assert (unread.count, unread.read_count, unread.damaged) == (1000, 0, [])
    assert format_contents(unread)[-1] == "damaged: none of those that were read"


def test_damaged_records_are_named_and_the_others_counted(tmp_path):
    need_opencv()
    jpeg = (IMAGES / "images/china/00.jpg").read_bytes()
    whole = Datum(data=jpeg, label=3, encoded=True)
    values = [
        whole,
        Datum(data=jpeg[: len(jpeg) // 2], label=3, encoded=True),
        Datum(data=b"nonsense", label=3, encoded=True),
        b"\x08\x01\x10",
        Datum(channels=1, height=2, width=2, data=b"123", label=1),
        array_to_datum(np.zeros((2, 3, 4), np.float32), 4),
        Datum(data=jpeg + b"trailing", encoded=True),
    ]
    found = contents(write(tmp_path / "db", values))
    assert found.count == found.read_count == 7
    assert [key for key, _ in found.damaged] == ["00000001", "00000002", "00000003", "00000004"]
    wanted = ["the JPEG is cut off", "no image OpenCV can decode", "not a Datum", "should hold 4 values"]
    assert [text for text, (_, reason) in zip(wanted, found.damaged, strict=True) if text not in reason] == []
    assert found.shapes == {(3, 48, 64): 2, (2, 3, 4): 1}
    assert found.stored_as == {"JPEG": 2, "float32": 1}
    assert found.labels == {3: 1, 4: 1}  # the last has none


def test_a_sample_is_evenly_spread(tmp_path):
    path = write(tmp_path / "db", [array_to_datum(np.zeros((1, 1, 1), np.uint8), index) for index in range(100)])
    assert sorted(contents(path, 4).labels) == [0, 25, 50, 75]
    assert contents(path, 4).read_count == 4
    assert spread(3, 7) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "missing: no such file or folder"),
        ("folder", "folder: a folder that holds one, two; expected an LMDB"),
        ("nothing", "nothing: an empty folder; expected an LMDB"),
        ("empty", "empty: looks like an empty file; expected an LMDB"),
        ("binary", "binary: looks like .*; expected an LMDB"),
        ("mean.binaryproto", "looks like a blob .*; expected an LMDB"),
        ("text", "text:1: expected the path of an image, a space and a label"),
        ("cut_lmdb", "cut_lmdb: cut off: data.mdb should have"),
        ("cut.gz", "cut.gz: cannot be unzipped"),
    ],
)
def test_files_that_are_something_else_have_a_clear_sentence(tmp_path, name, message):
    for folder in ("folder/one", "folder/two", "nothing", "cut_lmdb"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    shutil.copy(IMAGES / "images_mean.binaryproto", tmp_path / "mean.binaryproto")
    (tmp_path / "text").write_text("just some text\n")
    (tmp_path / "cut_lmdb/data.mdb").write_bytes((IMAGES / "images_raw_lmdb/data.mdb").read_bytes()[:50_000])
    (tmp_path / "cut.gz").write_bytes((DATA / "t10k-images-idx3-ubyte.gz").read_bytes()[:5000])
    with pytest.raises(DataError, match=message):
        contents(tmp_path / name)


def found_of(labels, **others):
    return Contents("db", "LMDB", 12_345, sum(labels.values()), sum(labels.values()), labels=Counter(labels), **others)


def test_the_histogram_has_a_bar_for_each_label():
    text = format_contents(found_of({0: 1000, 2: 500, 10: 1}), ["cat", "dog", "owl"])
    assert text[0] == "db: LMDB, 1,501 records, 12,345 bytes"
    assert text[1] == "read: all were read"
    assert text[2:6] == [
        "labels: 3, from 0 to 10, with 1 to 1,000 each",
        "  0 cat  1,000  " + "#" * 40,
        "  2 owl    500  " + "#" * 20,
        "  10         1  #",
    ]
    assert text[-1] == "damaged: none"


def test_of_many_labels_the_most_and_the_least_frequent_are_shown():
    text = format_contents(found_of({label: 1 + label for label in range(1000)}))
    rows = [line.split()[0] for line in text if line.endswith("#")]
    assert rows == [str(label) for label in (*range(999, 987, -1), *range(11, -1, -1))]
    assert "  ... 976 labels between" in text


def test_what_was_read_and_what_is_damaged_is_said():
    found = found_of({}, damaged=[(f"key{i}", "bad") for i in range(12)])
    found.count, found.read_count = 50_000, 2000
    text = format_contents(found)
    assert text[1] == "read: 2,000, evenly spread, were read; --check reads all"
    assert text[-12:] == ["damaged: 12 of 2,000", *(f"  key{i}: bad" for i in range(10)), "  ... and 2 more"]
    found.damaged.clear()
    assert format_contents(found)[-1] == "damaged: none of those that were read"


def test_values_for_programs_leave_nothing_out(tmp_path):
    found = found_of({3: 2, 1: 1}, shapes=Counter({(3, 2, 2): 3}), damaged=[("a", "b")], keys=("x", "y"))
    values = json.loads(json.dumps(contents_values(found)))
    assert values["labels"] == {"1": 1, "3": 2}
    assert values["shapes"] == [{"shape": [3, 2, 2], "count": 3}]
    assert values["damaged"] == [{"key": "a", "reason": "b"}]
    assert values["keys"] == {"first": "x", "last": "y"}


def test_a_contact_sheet_shows_every_image():
    need_opencv()
    from paratrain.tools.contact_sheet import draw_sheet

    blue = np.zeros((3, 10, 20), np.uint8)
    blue[0] = 200
    bright = np.full((1, 300, 100), 90, np.uint8)
    ramp = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    sheet = draw_sheet([(blue, "0"), (bright, "cat"), (ramp, "2"), (None, "damaged")])
    assert sheet.shape == (3, 2 * 120 + 8, 2 * 104 + 8)
    cells = [sheet[:, y : y + 96, x : x + 96] for y in (8, 128) for x in (8, 112)]
    assert [int((cells[0][channel] == value).sum()) for channel, value in enumerate((200, 0, 0))] == [40 * 80] * 3
    assert int((cells[1] == 90).all(axis=0).sum()) == 96 * 32
    assert {int(value) for value in np.unique(cells[2])} == set(range(0, 256, 17))
    assert (cells[3] == np.array([0, 0, 255]).reshape(3, 1, 1)).all(axis=0).sum() >= 96  # a red cross
    captions = [sheet[:, y + 96 : y + 112, x : x + 96] for y in (8, 128) for x in (8, 112)]
    assert all((caption < 128).any() for caption in captions)


def test_paths_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(shutil.copytree(IMAGES / "images_raw_lmdb", "db"))
    assert contents(path).path == "db"


def test_a_file_of_no_images(tmp_path):
    (tmp_path / "images").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28]))
    found = contents(tmp_path / "images")
    assert (found.count, found.keys, found.damaged) == (0, None, [])


def test_what_would_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="fifo: is neither a file nor a folder; expected an LMDB"):
        contents(tmp_path / "fifo")


def test_a_database_whose_order_is_damaged_is_no_crash(tmp_path):
    """Some keys are overwritten where they lie, so that they are listed but not found."""
    path = write(tmp_path / "db", [array_to_datum(np.full((1, 2, 2), index, np.uint8), index) for index in range(50)])
    data = (path / "data.mdb").read_bytes()
    assert data.count(b"00000020") == data.count(b"00000030") == 1
    (path / "data.mdb").write_bytes(data.replace(b"00000020", b"00000099").replace(b"00000030", b"00000001"))
    found = contents(path)
    assert found.count == 50 and found.damaged
    assert all("the database is damaged" in reason for _, reason in found.damaged)

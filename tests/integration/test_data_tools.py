"""The verbs that make databases and look into them, as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paratrain.data import LevelDbReader, LmdbReader, LmdbWriter, array_to_datum
from paratrain.proto import BlobProto, Datum, read_binary
from tests.integration.cli import ENVIRONMENT, error, messages, paratrain_here
from tests.optional import need_leveldb
from tests.paths import DATA

pytest.importorskip("cv2", reason="no OpenCV is installed (the extra 'images')")

SIZE = ("-resize_height", "32", "--resize_width=36")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Caffe's images and their list."""
    shutil.copytree(DATA / "images" / "images", tmp_path / "images")
    shutil.copy(DATA / "images" / "list.txt", tmp_path)
    return tmp_path


def records(path: Path, kind: type[LmdbReader] | type[LevelDbReader] = LmdbReader) -> dict[bytes, bytes]:
    with kind(path) as reader:
        return {reader.key(i): reader.get(i) for i in range(len(reader))}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("-resize_height=32", "-resize_width=36"), "raw"),
        (("--resize_height", "32", "--resize_width", "36", "--nogray", "--shuffle=false"), "raw"),
        ((*SIZE, "-gray"), "gray"),
        ((*SIZE, "--gray=true", "--backend=lmdb", "-check_size"), "gray"),
        ((*SIZE, "--gray=1", "-noencoded"), "gray"),
        ((*SIZE, "-encode_type=png", "--encoded"), "png"),
        ((*SIZE, "--encode_type", "png", "--logtostderr=1", "-encoded=True", "--threads", "1"), "png"),
    ],
)
@pytest.mark.parametrize("flags_first", [True, False])
def test_flags_are_spelled_as_gflags_takes_them(
    folder: Path, flags: tuple[str, ...], name: str, flags_first: bool
) -> None:
    positional = ("images/", "list.txt", "db")
    words = (*flags, *positional) if flags_first else (*positional, *flags)
    done = paratrain_here(folder, "convert_imageset", *words)
    assert done.returncode == 0, done.stderr
    assert records(folder / "db") == records(DATA / "images" / f"images_{name}_lmdb")
    assert "A total of 24 images." in messages(done)
    assert "Processed 24 files." in messages(done)
    assert done.stdout.startswith("written to db: 24 images in ")


def test_leveldb_and_its_mean(folder: Path) -> None:
    need_leveldb()
    assert (
        paratrain_here(folder, "convert_imageset", "-backend=leveldb", *SIZE, "images/", "list.txt", "db").returncode
        == 0
    )
    assert records(folder / "db", LevelDbReader) == records(DATA / "images" / "images_raw_lmdb")
    done = paratrain_here(folder, "compute_image_mean", "db", "mean.binaryproto", "--backend=leveldb")
    assert done.returncode == 0, done.stderr
    assert (folder / "mean.binaryproto").read_bytes() == (DATA / "images" / "images_mean.binaryproto").read_bytes()
    mean = np.array(read_binary(folder / "mean.binaryproto", BlobProto).data).reshape(3, -1).mean(axis=1)
    said = [line.rpartition(":") for line in messages(done) if line.startswith("mean_value channel")]
    assert [start for start, _, _ in said] == [f"mean_value channel [{channel}]" for channel in range(3)]
    assert np.allclose([float(value) for _, _, value in said], mean, atol=1e-3)
    assert "Number of channels: 3" in messages(done)
    assert names(folder) == {"db", "images", "list.txt", "mean.binaryproto"}


def test_the_mean_needs_no_file_and_no_backend(folder: Path) -> None:
    done = paratrain_here(folder, "compute_image_mean", str(DATA / "images" / "images_png_lmdb"))
    assert done.returncode == 0 and sum("mean_value" in line for line in messages(done)) == 3
    assert names(folder) == {"images", "list.txt"}
    failed = paratrain_here(
        folder, "compute_image_mean", str(DATA / "images" / "images_png_lmdb"), "no/mean.binaryproto"
    )
    assert "no/mean.binaryproto: cannot be written: there is no such folder" in error(failed)


def test_shuffled(folder: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        flags = ("--shuffle", "--seed", seed, *SIZE)
        assert paratrain_here(folder, "convert_imageset", *flags, "images/", "list.txt", name).returncode == 0
    a, b, c = (records(folder / name) for name in "abc")
    assert list(a.items()) == list(b.items()) != list(c.items())
    assert sorted(a.values()) == sorted(records(DATA / "images" / "images_raw_lmdb").values())
    assert [key[:9] for key in a] == [b"%08d_" % index for index in range(24)]


def test_images_that_cannot_be_read_are_counted(folder: Path) -> None:
    (folder / "images/china/02.png").unlink()
    done = paratrain_here(folder, "convert_imageset", "images/", "list.txt", "db")
    assert done.returncode == 0
    assert "1 images could not be read and are not in it; the first: china/02.png" in done.stdout
    assert any(line.startswith("Could not open or find file images/china/02.png") for line in messages(done))
    failed = paratrain_here(folder, "convert_imageset", "images/", "list.txt", "db2", "--on-bad-record", "stop")
    assert error(failed).startswith("list.txt:3: there is no image images/china/02.png")
    assert names(folder) == {"db", "images", "list.txt"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert_imageset", "images/", "list.txt", "images"), "images: exists already"),
        (("convert_imageset", "images/", "list.txt", "list.txt"), "list.txt: exists already"),
        (("convert_imageset", "images/", "list.txt", "."), "'.' is no name of a new folder; write one, such as"),
        (("convert_folder", "images", ""), "'.' is no name of a new folder; write one, such as"),
        (("convert_imageset", "images", "list.txt", "db"), "none of the 24 images can be read"),
        (("convert_imageset", "images/", "missing.txt", "db"), "missing.txt: the list of images cannot be read"),
        (("convert_imageset", "images/", "list.txt", "db", "-check_size"), "list.txt:2: images/flower/01.png has"),
        (("convert_imageset", "images/", "list.txt", "db", "-resize_width", "3"), "give both, or neither"),
        (("convert_folder", "images", "list.txt"), "list.txt: exists already"),
        (("convert_folder", "list.txt", "db"), "list.txt: cannot be read"),
        (("convert_mnist", "list.txt", "list.txt", "db"), "list.txt: is not an MNIST file of images"),
        (("convert_cifar", "images", "db"), "images: holds neither data_batch_1.bin"),
        (("compute_image_mean", "images"), "images: not an LMDB"),
        (("data", "images"), "images: a folder that holds china, flower; expected an LMDB"),
        (("data", "list.txt", "--labels", "no.txt"), "no.txt: the class names cannot be read"),
    ],
)
def test_bad_input_is_one_clear_sentence_and_leaves_nothing(folder: Path, words: tuple[str, ...], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert message in error(paratrain_here(folder, *words))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    "words",
    [
        ("convert_imageset", "images/", "list.txt"),
        ("convert_imageset", "images/", "list.txt", "db", "-backend", "rocksdb"),
        ("convert_folder", "images", "db", "--test-share", "1"),
        ("convert_mnist", "a", "b", "db", "--records", "8000"),
        ("data", "list.txt", "--sheet", "sheet.jpg"),
    ],
)
def test_commands_that_cannot_be_understood(folder: Path, words: tuple[str, ...]) -> None:
    assert paratrain_here(folder, *words).returncode == 2
    assert names(folder) == {"images", "list.txt"}


def test_mnist(tmp_path: Path) -> None:
    files = (str(DATA / "t10k-images-idx3-ubyte.gz"), str(DATA / "t10k-labels-idx1-ubyte.gz"))
    done = paratrain_here(tmp_path, "convert_mnist", *files, "db", "--records", "9990:")
    assert done.returncode == 0, done.stderr
    assert list(records(tmp_path / "db")) == [b"%08d" % index for index in range(10)]
    assert messages(done) == ["A total of 10 items.", "Rows: 28 Cols: 28"]


def test_cifar(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for label, name in enumerate([*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]):
        (tmp_path / "bin" / name).write_bytes(bytes([label]) + bytes(range(256)) * 12)
    done = paratrain_here(tmp_path, "convert_cifar", "bin", "out")
    assert done.returncode == 0, done.stderr
    assert "written to out/cifar10_train_lmdb: 5 images\nwritten to out/cifar10_test_lmdb: 1 images\n" in done.stdout
    (datum,) = (Datum.FromString(value) for value in records(tmp_path / "out/cifar10_test_lmdb").values())
    assert (datum.label, datum.data) == (5, bytes(range(256)) * 12)
    assert paratrain_here(tmp_path, "data", "out/cifar10_train_lmdb", "--rgb", "--sheet", "sheet.png").returncode == 0


def test_folder_and_what_is_in_it(folder: Path) -> None:
    (folder / "images/notes.txt").touch()
    done = paratrain_here(folder, "convert_folder", "images", "out", *SIZE, "--test-share", "0.25", "--encode_type=png")
    assert done.returncode == 0, done.stderr
    assert "2 classes, 24 images; 1 other files are ignored" in messages(done)
    assert "written to out/train_lmdb: 18 images\nwritten to out/test_lmdb: 6 images\n" in done.stdout
    seen = paratrain_here(folder, "data", "out/train_lmdb", "--labels", "out/labels.txt", "--sheet", "sheet.png")
    assert seen.returncode == 0, seen.stderr
    assert f"  1 flower  9  {'#' * 40}\n" in seen.stdout
    assert seen.stdout.endswith("damaged: none\ndrawn to sheet.png\n")
    assert (folder / "sheet.png").read_bytes().startswith(b"\x89PNG")
    again = paratrain_here(folder, "convert_imageset", "images/", "out/train.txt", "again", *SIZE, "--encode_type=png")
    assert again.returncode == 0
    assert records(folder / "again") == records(folder / "out/train_lmdb")


def test_what_is_damaged_is_said_and_makes_the_exit_code_1(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db") as database:
        for index in range(10_200):
            database.put(b"%08d" % index, array_to_datum(np.zeros((1, 1, 1), np.uint8), index % 3).SerializeToString())
        database.put(b"%08d" % 10_200, Datum(channels=1, height=2, width=2, data=b"12").SerializeToString())
    sampled = paratrain_here(tmp_path, "data", "db")
    assert sampled.returncode == 0
    assert "read: 2,000, evenly spread, were read; --check reads all" in sampled.stdout
    assert "damaged: none of those that were read" in sampled.stdout
    checked = paratrain_here(tmp_path, "data", "db", "--check", "--json")
    assert checked.returncode == 1
    values = json.loads(checked.stdout)
    assert values["read_count"] == values["count"] == 10_201
    assert [damaged["key"] for damaged in values["damaged"]] == ["00010200"]
    assert values["labels"] == {"0": 3400, "1": 3400, "2": 3400}


def test_nothing_heavy_is_imported_by_the_help() -> None:
    code = (
        "import sys; from paratrain.launch.cli import main; main(['convert_imageset', '--help']);"
        "assert not {'cv2', 'lmdb', 'plyvel', 'h5py', 'mpi4py', 'tqdm'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)

"""Lists of images become databases that equal those of Caffe's convert_imageset, byte for byte."""

from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pytest

from paratrain.data import LevelDbReader, LmdbReader, datum_to_array
from paratrain.data.image_list import ListedImage, read_list
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.imageset import ImageSettings, convert_images, shuffled
from paratrain.tools.work import Work
from tests.optional import need_leveldb
from tests.paths import DATA

cv2 = pytest.importorskip("cv2", reason="no OpenCV is installed (the extra 'images')")

CAFFES = DATA / "images"
ROOT = f"{CAFFES / 'images'}/"


def convert(target, listed=None, root=ROOT, settings=None, **options):
    listed = read_list(CAFFES / "list.txt") if listed is None else listed
    with Work(len(listed), "images") as work:
        return convert_images(root, listed, target, settings or ImageSettings(), work, **options)


def records(path, kind=LmdbReader):
    with kind(path) as reader:
        return {reader.key(i): reader.get(i) for i in range(len(reader))}


def datums(path):
    return {key.decode(): Datum.FromString(value) for key, value in records(path).items()}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("images_raw_lmdb", ImageSettings(height=32, width=36)),
        ("images_gray_lmdb", ImageSettings(height=32, width=36, gray=True)),
        ("images_png_lmdb", ImageSettings(height=32, width=36, encoded=True, encode_type="png")),
        ("images_jpg_lmdb", ImageSettings(height=32, width=36, encode_type="jpg")),
    ],
)
@pytest.mark.parametrize("thread_count", [1, 4])
def test_databases_equal_those_that_caffe_made(tmp_path, name, settings, thread_count):
    done = convert(tmp_path / "db", settings=settings, thread_count=thread_count)
    assert (done.count, done.skipped) == (24, [])
    found, expected = records(tmp_path / "db"), records(CAFFES / name)
    assert list(found) == list(expected)
    if "jpg" in name and found != expected:  # another version of libjpeg
        for key, value in found.items():
            ours, caffes = (datum_to_array(Datum.FromString(each)) for each in (value, expected[key]))
            assert np.abs(ours.astype(int) - caffes).max() <= 2, key
    else:
        assert found == expected


def test_the_leveldb_equals_caffes(tmp_path):
    need_leveldb()
    convert(tmp_path / "db", settings=ImageSettings(height=32, width=36), backend="leveldb")
    caffes = shutil.copytree(CAFFES / "images_raw_leveldb", tmp_path / "caffes")
    assert records(tmp_path / "db", LevelDbReader) == records(caffes, LevelDbReader)


def test_encoded_files_are_stored_as_they_are(tmp_path):
    convert(tmp_path / "db", settings=ImageSettings(encoded=True))
    for key, datum in datums(tmp_path / "db").items():
        name = key.partition("_")[2]
        assert datum == Datum(data=(CAFFES / "images" / name).read_bytes(), label=int("flower" in name), encoded=True)


def test_only_files_of_another_type_are_encoded_anew(tmp_path):
    listed = [ListedImage(name, 0) for name in ("china/00.jpg", "flower/01.png", "x.JPEG")]
    shutil.copytree(CAFFES / "images", tmp_path / "images")
    shutil.copy(tmp_path / "images/china/00.jpg", tmp_path / "images/x.JPEG")
    convert(tmp_path / "db", listed, f"{tmp_path}/images/", ImageSettings(encoded=True, encode_type="jpg"))
    as_they_are = {
        key: datum.data == (tmp_path / "images" / key.partition("_")[2]).read_bytes()
        for key, datum in datums(tmp_path / "db").items()
    }
    assert as_they_are == {"00000000_china/00.jpg": True, "00000001_flower/01.png": False, "00000002_x.JPEG": True}
    assert datums(tmp_path / "db")["00000001_flower/01.png"].data[:3] == b"\xff\xd8\xff"


def test_resized_files_keep_the_type_that_their_name_says(tmp_path):
    convert(tmp_path / "db", settings=ImageSettings(encoded=True, height=20, width=30))
    for key, datum in datums(tmp_path / "db").items():
        assert datum.data.startswith(b"\xff\xd8\xff" if key.endswith(".jpg") else b"\x89PNG")
        assert datum_to_array(datum).shape == (3, 20, 30)


def test_a_file_without_an_ending_needs_a_type(tmp_path, caplog):
    shutil.copy(CAFFES / "images/flower/01.png", tmp_path / "picture")
    listed = [ListedImage("picture", 7, "list", 1)]
    with pytest.raises(DataError, match="does not end in a type"):
        convert(tmp_path / "a", listed, f"{tmp_path}/", ImageSettings(encoded=True), stop_on_bad=True)
    convert(tmp_path / "b", listed, f"{tmp_path}/", ImageSettings(encode_type="png"))
    assert datums(tmp_path / "b")["00000000_picture"].label == 7


def test_what_cannot_be_read_is_left_out_and_leaves_a_gap_in_the_keys(tmp_path, caplog):
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xffnonsense")
    (tmp_path / "list").write_text(
        f"{ROOT}china/00.jpg 3\nmissing.png 1\n\n{ROOT}flower/01.png -4\n{tmp_path}/damaged.jpg 2\n"
    )
    with caplog.at_level(logging.ERROR):
        done = convert(tmp_path / "db", read_list(tmp_path / "list"), root="")
    assert {key: datum.label for key, datum in datums(tmp_path / "db").items()} == {
        f"00000000_{ROOT}china/00.jpg": 3,
        f"00000003_{ROOT}flower/01.png": -4,
    }
    assert [(image.path, image.where) for image in done.skipped] == [
        ("missing.png", f"{tmp_path}/list:2"),
        (f"{tmp_path}/damaged.jpg", f"{tmp_path}/list:5"),
    ]
    assert "Could not open or find file missing.png" in caplog.messages[0]
    assert f"{tmp_path}/list:5" in caplog.messages[1]


def test_it_stops_at_what_cannot_be_read_where_that_is_asked_for(tmp_path):
    listed = [ListedImage("china/00.jpg", 0, "list", 1), ListedImage("no.jpg", 0, "list", 2)]
    with pytest.raises(DataError, match="^list:2: there is no image .*no.jpg"):
        convert(tmp_path / "db", listed, stop_on_bad=True)
    assert os.listdir(tmp_path) == []


def test_no_database_is_made_of_nothing(tmp_path):
    with pytest.raises(DataError, match="none of the 1 images can be read; nothing is written to .*/db"):
        convert(tmp_path / "db", [ListedImage("no.jpg", 0, "list", 1)])
    assert os.listdir(tmp_path) == []


def test_sizes_are_compared_where_that_is_asked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"list.txt:2: .*01.png has \(C, H, W\) \(3, 60, 50\), and the first .* \(3, 48, 64\)"
    ):
        convert(tmp_path / "db", check_size=True)
    assert os.listdir(tmp_path) == []
    for settings in (ImageSettings(height=8, width=9), ImageSettings(height=8, width=9, encoded=True)):
        convert(tmp_path / f"{settings.encoded}", settings=settings, check_size=True)
    convert(tmp_path / "mixed")
    assert {(datum.height, datum.width) for datum in datums(tmp_path / "mixed").values()} == {
        (48, 64),
        (60, 50),
        (40, 40),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ImageSettings(height=8), "resize_height is 8 and resize_width 0; give both, or neither"),
        (ImageSettings(encode_type="doc"), "does not write images .* as 'doc'; try png or jpg"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "db", settings=settings)


@pytest.mark.parametrize("line", ["cat.jpg", "cat.jpg one", "cat.jpg 1.5", "cat.jpg 2147483648", "3"])
def test_a_line_that_is_not_a_path_and_a_label_is_named(tmp_path, line):
    (tmp_path / "list").write_text(f"a.jpg 0\n{line}\n")
    with pytest.raises(DataError, match="list:2: expected the path of an image, a space and a label.* found"):
        read_list(tmp_path / "list")


def test_lists_are_read_as_caffe_does(tmp_path):
    (tmp_path / "list").write_bytes(
        "with space.jpg 3\r\n\r\ntwo  7\nkaf\u00e9.png 2147483647".encode() + b"\n\xff.png 0"
    )
    assert [(image.path, image.label) for image in read_list(tmp_path / "list")] == [
        ("with space.jpg", 3),
        ("", 0),
        ("two", 7),
        ("kaf\u00e9.png", 2147483647),
        ("\udcff.png", 0),
    ]
    for name, content in (("empty", ""), ("blank", "\n \n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match="the list of images is empty"):
            read_list(tmp_path / name)
    with pytest.raises(DataError, match="missing: the list of images cannot be read"):
        read_list(tmp_path / "missing")


def test_names_that_are_no_utf8_become_keys_as_they_are(tmp_path):
    shutil.copy(CAFFES / "images/flower/01.png", os.fsencode(tmp_path) + b"/\xff.png")
    convert(tmp_path / "db", [ListedImage("\udcff.png", 0, "list", 1)], f"{tmp_path}/")
    assert list(records(tmp_path / "db")) == [b"00000000_\xff.png"]


def test_shuffled_lists_depend_on_the_seed_alone():
    listed = read_list(CAFFES / "list.txt")
    first = shuffled(listed, 1)
    assert first == shuffled(listed, 1) != listed
    assert first != shuffled(listed, 2)
    assert sorted(image.where for image in first) == sorted(image.where for image in listed)

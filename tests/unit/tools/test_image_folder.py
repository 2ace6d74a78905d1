"""A folder for each class becomes databases for training and testing."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pytest

from paratrain.data import LmdbReader
from paratrain.data.image_list import read_list
from paratrain.errors import DataError
from paratrain.proto import Datum
from paratrain.tools.image_folder import ClassFolders, find_classes, split, write_databases
from paratrain.tools.imageset import ImageSettings
from paratrain.tools.work import Work
from tests.optional import need_opencv
from tests.paths import DATA


@pytest.fixture
def photos(tmp_path):
    """Caffe's images, and what is to be ignored."""
    folder = tmp_path / "photos"
    shutil.copytree(DATA / "images" / "images", folder)
    (folder / "readme.txt").write_text("ignored")
    (folder / "china" / "notes.txt").write_text("ignored")
    (folder / "china" / "._00.jpg").write_text("ignored")
    (folder / "flower" / "more").mkdir()
    (folder / "flower" / "01.png").rename(folder / "flower" / "more" / "01.PNG")
    (folder / ".git").mkdir()
    (folder / "nothing").mkdir()
    return folder


def convert(folder, output, **options):
    found = find_classes(folder)
    with Work(None, "images") as work:
        return write_databases(folder, output, ImageSettings(height=8, width=8), work, found=found, **options)


def records(path):
    with LmdbReader(path) as reader:
        return {reader.key(i).decode(): Datum.FromString(reader.get(i)) for i in range(len(reader))}


def test_classes_are_found(photos):
    found = find_classes(photos)
    assert found.names == ["china", "flower"]
    assert [len(images) for images in found.images] == [12, 12]
    assert found.images[1][:2] == ["flower/03.png", "flower/05.png"] and "flower/more/01.PNG" in found.images[1]
    assert sorted(found.ignored) == [".git", "china/._00.jpg", "china/notes.txt", "readme.txt"]


def test_links_are_followed_but_not_in_circles(photos):
    (photos / "flower" / "again").symlink_to(photos / "flower")
    (photos / "flower" / "more" / "up").symlink_to("../..")
    (photos / "linked").symlink_to(photos / "china")
    found = find_classes(photos)
    assert dict(zip(found.names, map(len, found.images), strict=True)) == {"china": 12, "flower": 12, "linked": 12}


@pytest.mark.parametrize("name", ["china/a\nb.jpg", "flower/a\rb.jpg", "two\nlines/01.jpg"])
def test_a_name_that_no_list_can_hold_is_refused(photos, name):
    (photos / name).parent.mkdir(exist_ok=True)
    (photos / name).touch()
    with pytest.raises(
        DataError, match=r"the name .*\\[nr].* has a line break in it, which no list can hold; rename it"
    ):
        find_classes(photos)


def test_everything_is_written_together(photos, tmp_path):
    need_opencv()
    done = convert(photos, tmp_path / "out", test_share=0.25, seed=5)
    assert {name: each.count for name, each in done.items()} == {"train_lmdb": 18, "test_lmdb": 6}
    assert sorted(os.listdir(tmp_path / "out")) == ["labels.txt", "test.txt", "test_lmdb", "train.txt", "train_lmdb"]
    assert (tmp_path / "out/labels.txt").read_text() == "china\nflower\n"
    everything = []
    for part in ("train", "test"):
        listed = read_list(tmp_path / f"out/{part}.txt")
        found = records(tmp_path / f"out/{part}_lmdb")
        assert list(found) == [f"{index:08d}_{image.path}" for index, image in enumerate(listed)]
        assert [datum.label for datum in found.values()] == [image.label for image in listed]
        assert all(image.label == ["china", "flower"].index(image.path.partition("/")[0]) for image in listed)
        everything += [image.path for image in listed]
    assert sorted(everything) == sorted(path for paths in find_classes(photos).images for path in paths)
    train_labels = [datum.label for datum in records(tmp_path / "out/train_lmdb").values()]
    assert Counter(train_labels) == {0: 9, 1: 9}
    assert train_labels != sorted(train_labels)  # shuffled


def test_the_same_seed_writes_the_same(photos, tmp_path):
    need_opencv()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert(photos, tmp_path / name, seed=seed)
    a, b, c = (records(tmp_path / name / "train_lmdb") for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("sizes", "share", "expected"),
    [([1, 2, 3, 10], 0.1, [0, 1, 1, 1]), ([2, 100], 0.9, [1, 90]), ([5, 7], 0, [0, 0]), ([15, 25], 0.1, [2, 2])],
)
def test_every_class_gives_its_share_to_the_test(sizes, share, expected):
    found = ClassFolders(
        [f"c{i}" for i in range(len(sizes))], [[f"c{i}/{j}" for j in range(n)] for i, n in enumerate(sizes)]
    )
    train, test = split(found, share, seed=3)
    assert [Counter(image.label for image in test)[label] for label in range(len(sizes))] == expected
    assert sorted(image.path for image in train + test) == sorted(path for paths in found.images for path in paths)


def test_without_a_share_there_is_no_test(photos, tmp_path):
    need_opencv()
    convert(photos, tmp_path / "out", test_share=0)
    assert sorted(os.listdir(tmp_path / "out")) == ["labels.txt", "train.txt", "train_lmdb"]


def test_nothing_is_left_where_an_image_is_damaged_and_that_is_to_stop(photos, tmp_path):
    need_opencv()
    (photos / "flower" / "bad.jpg").write_text("no image")
    with pytest.raises(DataError, match="flower/bad.jpg: .*no image OpenCV can decode"):
        convert(photos, tmp_path / "out", stop_on_bad=True)
    assert os.listdir(tmp_path) == ["photos"]
    done = convert(photos, tmp_path / "out")
    assert sum(len(each.skipped) for each in done.values()) == 1


def test_a_folder_without_classes(tmp_path):
    (tmp_path / "1.jpg").touch()
    with pytest.raises(DataError, match="holds no folder with images in it; expected one for each class"):
        find_classes(tmp_path)
    with pytest.raises(DataError, match="cannot be read .No such file"):
        find_classes(tmp_path / "missing")

"""Lists of image files."""

from __future__ import annotations

import numpy as np
import pytest

from paratrain.data import ImageListSource
from paratrain.data.images import decode, read_image_file, resize
from paratrain.errors import DataError
from tests.optional import need_opencv
from tests.paths import DATA

IMAGES = DATA / "images"


def list_of(path, text):
    (path / "list.txt").write_bytes(text)
    return str(path / "list.txt")


def test_lines_hold_a_path_and_a_label(tmp_path):
    source = ImageListSource(list_of(tmp_path, b"a b/c.jpg 3\r\n\n  \nd.png\t-1\ne.png   22"))
    assert len(source) == 3
    assert [source.describe(i).removeprefix(str(tmp_path)) for i in range(3)] == [
        "/list.txt:1 ('a b/c.jpg')",
        "/list.txt:4 ('d.png')",
        "/list.txt:5 ('e.png')",
    ]
    assert [image.label for image in source._images] == [3, -1, 22]


def test_the_mark_that_some_editors_begin_a_text_with_is_no_part_of_a_path(tmp_path):
    assert ImageListSource(list_of(tmp_path, b"\xef\xbb\xbfa.jpg 3\r\n")).key(0) == "a.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a.jpg 0\nb.jpg\n", r"list.txt:2: expected the path of an image, a space and a label.*found 'b.jpg'"),
        (b"\na.jpg 0.5\n", r"list.txt:2: .*found 'a.jpg 0.5'"),
        (b"a.jpg 2147483648\n", r"list.txt:1: .*an integer of 32 bits, found 'a.jpg 2147483648'"),
        (b"a.jpg " + b"9" * 400, r"list.txt:1: .*an integer of 32 bits, found 'a.jpg 9+\.\.\.'"),
        (b"a.jpg 1_0", r"list.txt:1: .*found 'a.jpg 1_0'"),
        ("a.jpg \u0663".encode(), r"list.txt:1: .*found 'a.jpg \u0663'"),
        (b"a\0b.jpg 1", r"list.txt:1: .*found 'a\\x00b.jpg 1'"),
        (b"a.jpg one", r"list.txt:1: .*found 'a.jpg one'"),
        (b" 7\n", r"list.txt:1: .*found ' 7'"),
        (b"x" * 500, r"list.txt:1: .*found 'x{80}\.\.\.'"),
        (b" \n\n", "list.txt: the list of images is empty"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        ImageListSource(list_of(tmp_path, text))


def test_a_missing_list(tmp_path):
    with pytest.raises(DataError, match=r"none.txt: the list of images cannot be read \(No such file"):
        ImageListSource(str(tmp_path / "none.txt"))


def test_missing_images_name_the_line(tmp_path, monkeypatch):
    monkeypatch.chdir(IMAGES)
    source = ImageListSource(list_of(tmp_path, b"china/00.jpg 0\nchina 1\nchina/01.jpg 1"), root_folder="images/")
    for record, message in [
        (1, r"list.txt:2 \('china'\): the image images/china cannot be read: Is a directory"),
        (2, r"list.txt:3 \('china/01.jpg'\): there is no image images/china/01.jpg \(looked up from "),
    ]:
        with pytest.raises(DataError, match=message):
            source.read(record)
    source = ImageListSource(str(IMAGES / "list.txt"), root_folder="images")
    with pytest.raises(DataError, match=r"list.txt:1 .*no image imageschina/00.jpg; root_folder .* write 'images/'"):
        source.read(0)


class TestImages:
    @pytest.fixture(autouse=True)
    def _opencv(self):
        pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")

    def test_images_are_decoded_and_resized(self):
        root = f"{IMAGES / 'images'}/"
        encoded = (IMAGES / "images" / "flower" / "01.png").read_bytes()
        whole, label = ImageListSource(str(IMAGES / "list.txt"), root_folder=root).read(1)
        assert label == 1
        assert np.array_equal(whole, decode(encoded, color=True))
        small, _ = ImageListSource(str(IMAGES / "list.txt"), root_folder=root, size=(20, 31)).read(1)
        assert small.shape == (3, 20, 31)
        assert np.array_equal(small, resize(whole, 20, 31))
        grey, _ = ImageListSource(str(IMAGES / "list.txt"), root_folder=root, color=False, size=(20, 31)).read(1)
        assert np.array_equal(grey, resize(decode(encoded, color=False), 20, 31))
        assert grey.shape == (1, 20, 31)

    def test_a_damaged_image_names_the_line(self, tmp_path):
        (tmp_path / "bad.jpg").write_bytes(b"nothing of an image")
        source = ImageListSource(list_of(tmp_path, b"bad.jpg 0"), root_folder=f"{tmp_path}/")
        with pytest.raises(DataError, match=r"list.txt:1 \('bad.jpg'\): 19 bytes that are no image"):
            source.read(0)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_resizing_is_bilinear_between_the_middles_of_pixels(self, channels):
        """The plain definition, in float; OpenCV's fixed point may differ by a grey level."""
        image = np.random.default_rng(1).integers(0, 256, (channels, 7, 5), np.uint8)
        height, width = 11, 9
        wanted = np.empty((channels, height, width))
        for y in range(height):
            for x in range(width):
                v = min(max((y + 0.5) * 7 / height - 0.5, 0), 6)
                u = min(max((x + 0.5) * 5 / width - 0.5, 0), 4)
                top, left = int(v), int(u)
                below, right = min(top + 1, 6), min(left + 1, 4)
                rows = (1 - (v - top)) * image[:, top] + (v - top) * image[:, below]
                wanted[:, y, x] = (1 - (u - left)) * rows[:, left] + (u - left) * rows[:, right]
        assert np.abs(resize(image, height, width) - wanted).max() <= 1


def test_a_size_that_opencv_cannot_make_names_the_line(tmp_path):
    need_opencv()
    source = ImageListSource(str(IMAGES / "list.txt"), root_folder=f"{IMAGES}/images/", size=(2**31 - 1, 2**31 - 1))
    with pytest.raises(DataError, match=r"list.txt:1 \('.*'\): the image cannot be resized to 2147483647 x 2147483647"):
        source.read(0)


def test_a_name_that_no_file_can_have():
    with pytest.raises(DataError, match=r"no image can have the name 'a\\x00b.jpg'"):
        read_image_file("a\0b.jpg")

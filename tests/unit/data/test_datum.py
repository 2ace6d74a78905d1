from __future__ import annotations

import sys

import numpy as np
import pytest

from paratrain.data import array_to_datum, datum_to_array
from paratrain.data.datum import parse_datum
from paratrain.data.images import decode
from paratrain.errors import DataError, MissingDependencyError
from paratrain.proto import Datum
from tests.paths import DATA

PNG = DATA / "images" / "images" / "flower" / "01.png"
JPEG = DATA / "images" / "images" / "china" / "00.jpg"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_survive_the_way_through_a_datum(dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(dtype)
    datum = parse_datum(array_to_datum(pixels, label=-7).SerializeToString())
    back = datum_to_array(datum)
    assert back.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert back.tolist() == pixels.tolist()
    assert datum.label == -7


def test_fractions_go_to_float_data():
    datum = array_to_datum(np.full((1, 1, 2), 0.25))
    assert (list(datum.float_data), datum.data) == ([0.25, 0.25], b"")


def test_an_array_of_other_axes_is_refused():
    with pytest.raises(ValueError, match=r"\(28, 28\)"):
        array_to_datum(np.zeros((28, 28), np.uint8))


def test_bytes_that_are_no_datum():
    with pytest.raises(DataError, match="11 bytes that are not a Datum"):
        parse_datum(b"hello world")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "should hold 0 values and holds 0; is the record a Datum at all"),
        (
            {"channels": 1, "height": 2, "width": 3, "data": b"12345"},
            "should hold 6 values and holds 5; the record is dam",
        ),
        ({"channels": 1, "height": 2, "width": 3, "data": b"1234567"}, "should hold 6 values and holds 7"),
        ({"channels": 1, "height": 2, "width": 3, "float_data": [1.0]}, "should hold 6 values and holds 1"),
        ({"channels": -1, "height": -2, "width": 3, "data": b"123456"}, "channels -1, height -2"),
        ({"channels": 3, "height": 0, "width": 0}, "is the record a Datum at all"),
        ({"channels": 3, "height": 9, "width": 9, "data": PNG.read_bytes()}, "'encoded' should be true"),
    ],
)
def test_values_that_do_not_fit_the_sizes(fields, message):
    with pytest.raises(DataError, match=message):
        datum_to_array(Datum(**fields))


def test_without_opencv_encoded_images_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'paratrain\[images\]'"):
        datum_to_array(Datum(encoded=True, data=PNG.read_bytes()))


class TestDecode:
    @pytest.fixture(autouse=True)
    def _opencv(self):
        pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")

    def test_channels_are_blue_green_red(self):
        import cv2

        wanted = np.zeros((2, 3, 3), np.uint8)
        wanted[..., 0], wanted[..., 1], wanted[..., 2] = 10, 20, 30
        encoded = cv2.imencode(".png", wanted)[1].tobytes()
        pixels = datum_to_array(Datum(encoded=True, data=encoded))
        assert pixels.shape == (3, 2, 3)
        assert pixels[:, 0, 0].tolist() == [10, 20, 30]

    def test_colour_on_request(self):
        assert decode(JPEG.read_bytes()).shape[0] == 3
        grey = decode(JPEG.read_bytes(), color=False)
        assert grey.shape[0] == 1
        import cv2

        encoded = cv2.imencode(".png", grey[0])[1].tobytes()
        assert decode(encoded).shape[0] == 1
        assert decode(encoded, color=True).shape[0] == 3
        assert decode(encoded, color=True).tolist() == [grey[0].tolist()] * 3

    def test_damaged_and_deep_images(self):
        import cv2

        for encoded in (b"", b"no image", PNG.read_bytes()[:20]):
            with pytest.raises(DataError, match=f"{len(encoded)} bytes that are no image"):
                decode(encoded)
        with pytest.raises(DataError, match="16 bits a channel"):
            decode(cv2.imencode(".png", np.zeros((2, 2), np.uint16))[1].tobytes())

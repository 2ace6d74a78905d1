"""caffe.io by numbers: those of scikit-image 0.26 and SciPy 1.17 called as pycaffe called them, and hand-computed ones.

scikit-image's ``resize(..., order=order, mode="constant")`` smooths since 0.15 before it shrinks; in Caffe's time it did not, so
that the values are those of ``anti_aliasing=False``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.data.images import encode
from paratrain.errors import (
    DataError,
    MissingDependencyError,
    NetError,
    ParatrainError,
    ShapeMismatchError,
    SnapshotError,
)
from paratrain.proto import BlobProto, BlobProtoVector, Datum
from paratrain.pycaffe import io
from tests.optional import need_opencv
from tests.paths import DATA

IMAGES = DATA / "images" / "images"

ONE = (np.arange(12).reshape(3, 4, 1) ** 2 / 16).astype(np.float32)
TWO = np.concatenate([ONE, ONE[::-1]], axis=2)

# (new_dims, order): what scikit-image makes of ONE.
SKIMAGE = {
    ((5, 6), 1): [
        [0.0, 0.025, 0.075, 0.175, 0.325, 0.375],
        [0.33333334, 0.53125, 0.7270833, 0.98541665, 1.30625, 1.3020833],
        [0.8333333, 1.28125, 1.6770834, 2.1354167, 2.65625, 2.5520833],
        [2.3333333, 3.23125, 3.8270833, 4.4854164, 5.20625, 4.8020835],
        [2.6666667, 3.6249998, 4.2083335, 4.8416667, 5.525, 5.0416665],
    ],
    ((2, 2), 1): [[0.34375, 0.96875], [3.7187498, 5.84375]],
    ((1, 7), 1): [[0.7857142, 1.2008928, 1.5223215, 1.9062501, 2.3080356, 2.7723212, 2.40625]],
    ((5, 6), 0): [
        [0.0, 0.0625, 0.0625, 0.25, 0.5625, 0.5625],
        [0.0, 0.0625, 0.0625, 0.25, 0.5625, 0.5625],
        [1.0, 1.5625, 1.5625, 2.25, 3.0625, 3.0625],
        [4.0, 5.0625, 5.0625, 6.25, 7.5625, 7.5625],
        [4.0, 5.0625, 5.0625, 6.25, 7.5625, 7.5625],
    ],
    ((2, 2), 3): [[0.05395094, 0.70847005], [4.6859465, 7.5625]],
    ((1, 7), 3): [[0.7763331, 1.27563, 1.537533, 1.7717519, 2.3566196, 3.1679444, 2.572543]],
}
# What scipy.ndimage.zoom makes of the second channel of TWO.
ZOOM = {
    ((5, 6), 1): [
        [4.0, 4.6375, 5.3, 6.0125, 6.775, 7.5625],
        [2.5, 2.9875, 3.5, 4.0625, 4.675, 5.3125],
        [1.0, 1.3375, 1.7, 2.1125, 2.575, 3.0625],
        [0.5, 0.6875, 0.9, 1.1625, 1.475, 1.8125],
        [0.0, 0.0375, 0.1, 0.2125, 0.375, 0.5625],
    ],
    ((1, 7), 1): [[4.0, 4.53125, 5.0625, 5.65625, 6.25, 6.90625, 7.5625]],
    ((7, 3), 0): [
        [4.0, 6.25, 7.5625], [4.0, 6.25, 7.5625], [1.0, 2.25, 3.0625], [1.0, 2.25, 3.0625], [1.0, 2.25, 3.0625],
        [0.0, 0.25, 0.5625], [0.0, 0.25, 0.5625],
    ],
    ((2, 2), 3): [[4.0, 7.5625], [0.0, 0.5625]],
    ((1, 7), 3): [[4.0, 4.36875, 5.0625, 5.625, 6.25, 7.1, 7.5625]],
}  # fmt: skip


@pytest.mark.parametrize(("dims", "order"), SKIMAGE)
def test_resizing_one_and_three_channels_gives_scikit_images_values(dims: tuple[int, int], order: int) -> None:
    if order > 1:
        pytest.importorskip("scipy", reason="no SciPy: pip install 'paratrain[splines]'")
    found = io.resize_image(ONE, dims, order)
    assert found.dtype == np.float32 and found.shape == (*dims, 1)
    np.testing.assert_allclose(found[..., 0], SKIMAGE[dims, order], rtol=0, atol=1e-6)
    three = io.resize_image(np.concatenate([ONE, ONE, ONE], axis=2), dims, order)
    np.testing.assert_array_equal(three[..., 2], found[..., 0])


@pytest.mark.parametrize(("dims", "order"), ZOOM)
def test_resizing_other_channels_gives_scipys_values(dims: tuple[int, int], order: int) -> None:
    if order > 1:
        pytest.importorskip("scipy", reason="no SciPy: pip install 'paratrain[splines]'")
    found = io.resize_image(TWO, dims, order)
    np.testing.assert_allclose(found[..., 1], ZOOM[dims, order], rtol=0, atol=1e-6)


def plain_bilinear(image: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """By its definition, pixel by pixel; beyond the rim everything is the darkest value."""
    low = image.min()

    def at(y: int, x: int, channel: int) -> float:
        inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
        return float(image[y, x, channel]) if inside else float(low)

    out = np.empty((height, width, image.shape[2]))
    for i, j, channel in np.ndindex(*out.shape):
        y, x = (i + 0.5) * image.shape[0] / height - 0.5, (j + 0.5) * image.shape[1] / width - 0.5
        top, left = int(np.floor(y)), int(np.floor(x))
        out[i, j, channel] = sum(
            abs(1 - dy - (y - top)) * abs(1 - dx - (x - left)) * at(top + dy, left + dx, channel)
            for dy in (0, 1)
            for dx in (0, 1)
        )
    return out


def test_resizing_by_a_plain_loop_at_sizes_larger_and_smaller() -> None:
    image = np.random.default_rng(1).normal(20, 50, (9, 7, 3))
    for dims in ((14, 20), (4, 3), (9, 2), (1, 1)):
        np.testing.assert_allclose(io.resize_image(image, dims), plain_bilinear(image, *dims), rtol=0, atol=1e-4)
    np.testing.assert_allclose(io.resize_image(image, (9, 7)), image, rtol=1e-6)


def test_resizing_images_of_one_value_and_whole_numbers() -> None:
    np.testing.assert_array_equal(io.resize_image(np.full((3, 3, 3), 7.0), (2, 5)), np.full((2, 5, 3), 7, np.float32))
    whole = np.array([[[0], [100]], [[200], [250]]], np.uint8)
    np.testing.assert_allclose(io.resize_image(whole, (1, 1)), [[[137.5]]])


@pytest.mark.parametrize(
    ("image", "dims", "said"),
    [
        (np.zeros((3, 3)), (2, 2), r"expected an image \(H, W, K\)"),
        (np.zeros((0, 3, 3)), (2, 2), r"expected an image"),
        (np.zeros((3, 3, 3)), (2, 0), r"expected a size"),
        (np.zeros((3, 3, 3)), (2,), r"expected a size"),
    ],
)
def test_what_cannot_be_resized(image: npt.NDArray[np.float64], dims: tuple[int, ...], said: str) -> None:
    with pytest.raises(ShapeMismatchError, match=said):
        io.resize_image(image, dims)
    with pytest.raises(ValueError, match="interp_order is 0 to 5"):
        io.resize_image(ONE, (2, 2), 6)


def test_splines_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(MissingDependencyError, match=r"paratrain\[splines\]"):
        io.resize_image(ONE, (2, 2), 3)


def test_ten_crops() -> None:
    images = np.arange(2 * 5 * 6 * 2, dtype=np.float32).reshape(2, 5, 6, 2)
    crops = io.oversample(images, (2, 3))
    assert crops.shape == (20, 2, 3, 2) and crops.dtype == np.float32
    for number, image in enumerate(images):
        # Top left, top right, bottom left, bottom right, and the middle: rows 1.5 and columns 1.5 rounded down.
        for place, (y, x) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3), (1, 1)]):
            expected = image[y : y + 2, x : x + 3]
            np.testing.assert_array_equal(crops[10 * number + place], expected)
            np.testing.assert_array_equal(crops[10 * number + 5 + place], expected[:, ::-1])
    np.testing.assert_array_equal(io.oversample(list(images), np.array([5, 6]))[9], images[0][:, ::-1])
    with pytest.raises(ShapeMismatchError, match="crops of 6 x 3 .* do not fit into images of 5 x 6"):
        io.oversample(images, (6, 3))
    with pytest.raises(ShapeMismatchError, match="images of one shape"):
        io.oversample([images[0], images[0][:3]], (2, 2))
    with pytest.raises(DataError, match="no image"):
        io.oversample([], (2, 2))


def test_loading_images_of_all_kinds(tmp_path: Path) -> None:
    need_opencv()
    loaded = io.load_image(IMAGES / "china" / "00.jpg")
    assert loaded.shape == (48, 64, 3) and loaded.dtype == np.float32
    # As scikit-image reads it: red, green, blue of the first pixel; its brightness.
    np.testing.assert_allclose(loaded[0, 0], [181 / 255, 194 / 255, 184 / 255], atol=1e-7)
    grey = io.load_image(str(IMAGES / "china" / "00.jpg"), color=False)
    assert grey.shape == (48, 64, 1)
    assert grey[0, 0, 0] == pytest.approx((0.2125 * 181 + 0.7154 * 194 + 0.0721 * 184) / 255)

    # Stored blue, green, red, alpha.
    pixels = np.array([[[10, 20, 30, 255], [1, 2, 3, 0]]], np.uint8).transpose(2, 0, 1)
    (tmp_path / "alpha.png").write_bytes(encode(pixels, "png"))
    np.testing.assert_allclose(io.load_image(tmp_path / "alpha.png") * 255, [[[30, 20, 10], [3, 2, 1]]], atol=1e-4)
    (tmp_path / "grey.png").write_bytes(encode(np.array([[[0, 51]]], np.uint8), "png"))
    np.testing.assert_allclose(io.load_image(tmp_path / "grey.png"), [[[0] * 3, [0.2] * 3]], atol=1e-7)
    np.testing.assert_allclose(io.load_image(tmp_path / "grey.png", False), [[[0], [0.2]]], atol=1e-7)
    (tmp_path / "deep.png").write_bytes(encode(np.array([[[0, 65535, 13107]]], np.uint16), "png"))
    np.testing.assert_allclose(io.load_image(tmp_path / "deep.png", False), [[[0], [1], [0.2]]], atol=1e-7)

    with pytest.raises(DataError, match=r"there is no image .*nix\.jpg"):
        io.load_image(tmp_path / "nix.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.jpg: 10 bytes that are no image"):
        io.load_image(tmp_path / "text.jpg")


def transformer() -> io.Transformer:
    made = io.Transformer({"data": (1, 3, 2, 2)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([104.0, 117, 123]))
    made.set_input_scale("data", 0.5)
    return made


def test_preprocess_by_hand_and_back() -> None:
    image = np.array([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], [[0.7, 0.8, 0.9], [1.0, 0.0, 0.5]]], np.float32)
    before = image.copy()
    found = transformer().preprocess("data", image)
    expected = np.empty((3, 2, 2))
    for c, y, x in np.ndindex(3, 2, 2):
        expected[c, y, x] = (image[y, x, 2 - c] * 255 - (104, 117, 123)[c]) * 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(image, before)  # Caffe's scales the caller's image as well
    np.testing.assert_allclose(transformer().deprocess("data", found), image, atol=1e-6)
    np.testing.assert_allclose(transformer().deprocess("data", found[np.newaxis]), image, atol=1e-6)


def test_preprocess_resizes_first_and_does_only_what_is_set() -> None:
    image = np.random.default_rng(2).random((5, 7, 3)).astype(np.float32)
    plain = io.Transformer({"data": [10, 3, 4, 2]})
    np.testing.assert_array_equal(plain.preprocess("data", image), io.resize_image(image, (4, 2)))
    plain.set_transpose("data", (2, 0, 1))
    mean = np.random.default_rng(3).random((3, 4, 2)).astype(np.float32)
    plain.set_mean("data", mean)
    expected = io.resize_image(image, (4, 2)).transpose(2, 0, 1) - mean
    np.testing.assert_allclose(plain.preprocess("data", image), expected, atol=1e-6)
    plain.set_mean("data", mean[0])  # one for all channels
    np.testing.assert_allclose(plain.preprocess("data", image) + mean[0], expected + mean, atol=1e-6)
    grey = io.Transformer({"data": (1, 1, 4, 2)})
    grey.set_transpose("data", (2, 0, 1))
    found = grey.preprocess("data", image[:4, :2, :1])
    np.testing.assert_array_equal(grey.deprocess("data", found), image[:4, :2, :1])


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("set_mean", np.zeros(2), r"the mean \(2,\): give one value for each of the 3 channels"),
        ("set_mean", np.zeros((2, 256, 256)), r"the mean \(2, 256, 256\): .* an image of as many channels"),
        ("set_mean", np.zeros((3, 0, 2)), r"the mean \(3, 0, 2\)"),
        ("set_mean", np.zeros((1, 3, 2, 2)), r"the mean \(1, 3, 2, 2\)"),
        ("set_transpose", (2, 0), r"\(2, 0\) is no order of its 3 axes"),
        ("set_transpose", (0, 0, 1), r"no order of its 3 axes"),
        ("set_channel_swap", (1, 0), r"no order of its 3 channels"),
        ("preprocess", np.zeros((2, 2, 1)), r"channel_swap \(2, 1, 0\) does not fit an image of the shape \(1, 2, 2\)"),
        ("preprocess", np.zeros((2, 2)), r"transpose \(2, 0, 1\) does not fit"),
    ],
)
def test_what_does_not_fit_an_input(method: str, value: object, said: str) -> None:
    with pytest.raises(ShapeMismatchError, match=said):
        getattr(transformer(), method)("data", value)


def test_an_input_that_is_not_there_and_a_mean_of_other_channels() -> None:
    for method in ("set_mean", "set_transpose", "set_channel_swap", "set_raw_scale", "preprocess", "deprocess"):
        with pytest.raises(NetError, match="'dat' is not one of the inputs: data; did you mean 'data'"):
            getattr(transformer(), method)("dat", np.zeros(3))
    made = io.Transformer({"data": (1, 3, 2, 2)})
    made.set_transpose("data", (2, 0, 1))
    made.set_mean("data", np.zeros(3))
    with pytest.raises(ShapeMismatchError, match="the mean has 3 channels"):
        made.preprocess("data", np.zeros((2, 2, 4)))


def test_blobprotos_both_ways() -> None:
    array = np.random.default_rng(4).normal(size=(2, 3, 4, 5)).astype(np.float32)
    blob = io.array_to_blobproto(array, diff=array + 1)
    assert list(blob.shape.dim) == [2, 3, 4, 5] and blob.data[7] == array.flat[7]
    np.testing.assert_array_equal(io.blobproto_to_array(BlobProto.FromString(blob.SerializeToString())), array)
    np.testing.assert_array_equal(io.blobproto_to_array(blob, return_diff=True), array + 1)
    assert io.blobproto_to_array(io.array_to_blobproto([1.0, 2.0])).tolist() == [1, 2]
    old = BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    assert io.blobproto_to_array(old).tolist() == [[[[1, 2]], [[3, 4]]]]
    with pytest.raises(SnapshotError, match="should have 4 values in 'diff' and has 0"):
        io.blobproto_to_array(old, return_diff=True)
    with pytest.raises(ShapeMismatchError, match="its diff"):
        io.array_to_blobproto(array, diff=array[0])


def test_vectors_of_blobprotos_both_ways() -> None:
    arrays = [np.ones((1, 2, 1, 1), np.float32), np.arange(3, dtype=np.float32)]
    text = io.arraylist_to_blobprotovector_str(arrays)
    assert len(BlobProtoVector.FromString(text).blobs) == 2
    for found, array in zip(io.blobprotovector_str_to_arraylist(text), arrays, strict=True):
        np.testing.assert_array_equal(found, array)
    assert io.arraylist_to_blobprotovecor_str(arrays) == text
    with pytest.raises(DataError, match="not a BlobProtoVector"):
        io.blobprotovector_str_to_arraylist(b"\xff\xff")


def test_datums_both_ways() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    datum = io.array_to_datum(pixels, 7)
    assert (datum.channels, datum.height, datum.width, datum.label, datum.data) == (3, 2, 2, 7, bytes(range(12)))
    found = io.datum_to_array(Datum.FromString(datum.SerializeToString()))
    assert found.dtype == np.uint8 and found.flags.writeable
    np.testing.assert_array_equal(found, pixels)
    floats = io.array_to_datum(pixels / 8)
    assert not floats.HasField("label") and not floats.data and floats.float_data[3] == 0.375
    np.testing.assert_array_equal(io.datum_to_array(floats), pixels / 8)
    with pytest.raises(ShapeMismatchError, match=r"holds \(C, H, W\)"):
        io.array_to_datum(pixels[0])
    with pytest.raises(ParatrainError, match="should hold 4 values and holds 1"):
        io.datum_to_array(Datum(channels=1, height=2, width=2, data=b"x"))


def test_a_mean_image_of_another_size_is_resized() -> None:
    mean = np.random.default_rng(4).random((3, 5, 7)) * 255
    made = io.Transformer({"data": (1, 3, 4, 2)})
    made.set_mean("data", mean)
    expected = io.resize_image(mean.transpose(1, 2, 0), (4, 2)).transpose(2, 0, 1)
    np.testing.assert_allclose(made.mean["data"], expected, rtol=1e-6)
    made.set_mean("data", mean[0])  # one for all channels
    np.testing.assert_allclose(
        made.mean["data"][0], io.resize_image(mean[0, :, :, np.newaxis], (4, 2))[:, :, 0], rtol=1e-6
    )
    made.set_mean("data", mean.mean((1, 2)))
    assert made.mean["data"].shape == (3, 1, 1)


def test_what_scripts_take_from_caffe_io_and_is_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert io.caffe_pb2.BlobProto is BlobProto
    resize = ModuleType("skimage.transform")
    resize.resize = len  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skimage.transform", resize)
    assert io.resize is len
    monkeypatch.setitem(sys.modules, "skimage.transform", None)
    with pytest.raises(AttributeError, match="resize is that of scikit-image, which is not installed: .*resize_image"):
        _ = io.resize
    with pytest.raises(AttributeError, match="has no attribute 'resise'"):
        _ = io.resise

from __future__ import annotations

import numpy as np
import pytest

from paratrain.data import Transformer
from paratrain.errors import DataError
from paratrain.proto import TEST, TRAIN, TransformationParameter, array_to_blob, write_binary

RNG = np.random.default_rng(5)
MEAN = RNG.uniform(0, 255, (3, 7, 6)).astype(np.float32)


@pytest.fixture
def mean_file(tmp_path):
    path = tmp_path / "mean.binaryproto"
    write_binary(path, array_to_blob(MEAN[None]))
    return str(path)


def transform(images, phase=TRAIN, positions=None, dtype=np.float32, **fields):
    transformer = Transformer(TransformationParameter(**fields), phase, seed=3, layer_name="data")
    positions = np.arange(len(images), dtype=np.uint64) if positions is None else np.array(positions, np.uint64)
    out = np.full((len(images), *transformer.output_shape(images[0].shape)), np.nan, dtype)
    transformer.transform(iter(images), positions, out)
    return out


def by_hand(image, top, left, size, mirrored, mean, scale):
    """The formula, value by value."""
    height, width = (size, size) if size else image.shape[1:]
    out = np.empty((image.shape[0], height, width), np.float32)
    for c in range(image.shape[0]):
        for y in range(height):
            for x in range(width):
                value = np.float32(image[c, top + y, left + x])
                value = np.float32((value - mean[c, top + y, left + x]) * np.float32(scale))
                out[c, y, width - 1 - x if mirrored else x] = value
    return out


def images_of(shape, count=6, dtype=np.uint8):
    return list(RNG.integers(0, 256, (count, *shape)).astype(dtype))


def means():
    return {
        "none": ({}, np.zeros_like(MEAN)),
        "one value": ({"mean_value": [33.5]}, np.full_like(MEAN, 33.5)),
        "a value each": (
            {"mean_value": [104, 117, 123]},
            np.broadcast_to(np.float32([104, 117, 123]).reshape(3, 1, 1), MEAN.shape),
        ),
        "file": ({"mean_file": None}, MEAN),
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("scale", [1, 0.0125])
@pytest.mark.parametrize("mean_kind", list(means()))
@pytest.mark.parametrize("crop", [0, 4])
def test_in_test_phase_the_middle_is_taken(mean_file, crop, mean_kind, scale, dtype):
    fields, mean = means()[mean_kind]
    fields = {key: value or mean_file for key, value in fields.items()}
    images = images_of((3, 7, 6), dtype=dtype)
    out = transform(images, TEST, scale=scale, crop_size=crop, **fields)
    top, left = ((7 - 4) // 2, (6 - 4) // 2) if crop else (0, 0)
    for image, result in zip(images, out, strict=True):
        np.testing.assert_array_equal(result, by_hand(image, top, left, crop, False, mean, scale))


@pytest.mark.parametrize("mean_kind", list(means()))
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("crop", [0, 4, 6])
def test_in_training_every_result_is_one_of_the_windows(mean_file, crop, mirror, mean_kind):
    fields, mean = means()[mean_kind]
    fields = {key: value or mean_file for key, value in fields.items()}
    images = images_of((3, 7, 6), count=40)
    out = transform(images, TRAIN, scale=0.5, crop_size=crop, mirror=mirror, **fields)
    windows = [(y, x) for y in range(7 - crop + 1) for x in range(6 - crop + 1)] if crop else [(0, 0)]
    chosen = set()
    for image, result in zip(images, out, strict=True):
        fitting = [
            (y, x, m)
            for y, x in windows
            for m in {False, mirror}
            if np.array_equal(by_hand(image, y, x, crop, m, mean, 0.5), result)
        ]
        assert len(fitting) == 1
        chosen.add(fitting[0])
    assert {m for _, _, m in chosen} == {False, mirror}
    assert {(y, x) for y, x, _ in chosen} == set(windows) or len(windows) > 5
    assert len({(y, x) for y, x, _ in chosen}) >= min(len(windows), 5)


def test_large_images_are_worked_on_piece_by_piece_with_the_same_result(monkeypatch):
    images = images_of((3, 7, 6), count=5)
    whole = transform(images, mirror=True, scale=0.1, mean_value=[3])
    monkeypatch.setattr("paratrain.data.transformer._CHUNK_VALUES", 2 * 3 * 7 * 6)
    assert np.array_equal(whole, transform(images, mirror=True, scale=0.1, mean_value=[3]))
    monkeypatch.setattr("paratrain.data.transformer._CHUNK_VALUES", 1)
    assert np.array_equal(whole, transform(images, mirror=True, scale=0.1, mean_value=[3]))


def test_chance_depends_on_the_position_and_not_on_the_batch():
    images = images_of((3, 12, 12), count=30)
    whole = transform(images, crop_size=5, mirror=True)
    order = RNG.permutation(30)
    again = transform([images[i] for i in order], positions=order, crop_size=5, mirror=True)
    assert np.array_equal(again, whole[order])
    later = transform(images, positions=np.arange(30, 60), crop_size=5, mirror=True)
    assert not np.array_equal(later, whole), "another epoch has other crops"


def test_a_net_in_double_precision():
    images = images_of((3, 7, 6))
    out = transform(images, TEST, dtype=np.float64, scale=0.1, mean_value=[33])
    scale = float(np.float32(0.1))
    np.testing.assert_array_equal(out, (np.stack(images).astype(np.float64) - 33) * scale)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean_file": "x", "mean_value": [1]}, "both mean_file and mean_value"),
        ({"force_color": True, "force_gray": True}, "both force_color and force_gray"),
        ({"mean_file": "missing.binaryproto"}, "mean_file missing.binaryproto: no such file"),
        ({"crop_h": 3}, "transform_param.crop_h .of SSD"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(DataError, match=message):
        Transformer(TransformationParameter(**fields), TRAIN)


def test_images_that_do_not_fit(mean_file):
    for fields, message in [
        ({"crop_size": 7}, r"the image is 7 x 5 .*smaller than crop_size 7"),
        ({"mean_value": [1, 2]}, "mean_value is given 2 times; give it once, or once for each of 3"),
        ({"mean_file": mean_file}, r"has the shape \(3, 7, 6\) \(C, H, W\), the image \(3, 7, 5\)"),
    ]:
        with pytest.raises(DataError, match=message):
            Transformer(TransformationParameter(**fields), TEST).output_shape((3, 7, 5))


def test_a_mean_file_of_several_images_is_refused(tmp_path):
    write_binary(tmp_path / "mean", array_to_blob(np.zeros((2, 3, 4, 4), np.float32)))
    with pytest.raises(DataError, match=r"expected one image .* found the shape \(2, 3, 4, 4\)"):
        Transformer(TransformationParameter(mean_file=str(tmp_path / "mean")), TEST)

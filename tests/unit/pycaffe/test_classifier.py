"""Classifier: what the net says of crops, computed one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.errors import DataError, NetError, ShapeMismatchError, SnapshotError
from paratrain.pycaffe.classifier import Classifier
from paratrain.pycaffe.io import resize_image
from tests.unit.pycaffe.picture_nets import SIZE, score, write_net

MEAN = np.array([10.0, 20.0, 30.0])
SETTINGS = {"mean": MEAN, "raw_scale": 255, "input_scale": 0.02, "channel_swap": (2, 1, 0)}


def prepare(crop: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """By hand, for SETTINGS."""
    out = np.empty((3, SIZE, SIZE), np.float32)
    for c in range(3):
        out[c] = (crop[:, :, 2 - c] * 255 - MEAN[c]) * 0.02
    return out


@pytest.fixture
def images() -> list[npt.NDArray[np.float32]]:
    random = np.random.default_rng(6)
    return [random.random((height, width, 3)).astype(np.float32) for height, width in ((9, 11), (8, 10), (20, 7))]


def test_the_crop_in_the_middle(tmp_path: Path, images: list[npt.NDArray[np.float32]]) -> None:
    weights = write_net(tmp_path)
    net = Classifier(tmp_path / "deploy.prototxt", str(tmp_path / "w.caffemodel"), image_dims=[9, 8], **SETTINGS)
    found = net.predict(images, oversample=False)
    assert found.shape == (3, 3)
    for image, row in zip(images, found, strict=True):
        crop = resize_image(image, (9, 8))[1 : 1 + SIZE, 1 : 1 + SIZE]
        np.testing.assert_allclose(row, score(prepare(crop), weights), rtol=1e-4, atol=1e-5)


def test_the_mean_over_ten_crops_in_several_batches(tmp_path: Path, images: list[npt.NDArray[np.float32]]) -> None:
    weights = write_net(tmp_path)
    net = Classifier(tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel", (9, 8), **SETTINGS)
    found = net.predict(images)  # 30 crops in batches of 4
    for image, row in zip(images, found, strict=True):
        resized = resize_image(image, (9, 8))
        crops = [resized[y : y + SIZE, x : x + SIZE] for y, x in ((0, 0), (0, 2), (3, 0), (3, 2), (1, 1))]
        scores = [score(prepare(each), weights) for crop in crops for each in (crop, crop[:, ::-1])]
        np.testing.assert_allclose(row, np.mean(scores, axis=0), rtol=1e-4, atol=1e-5)


def test_without_settings_whole_images_are_warped_to_the_input(
    tmp_path: Path, images: list[npt.NDArray[np.float32]]
) -> None:
    weights = write_net(tmp_path)
    net = Classifier(str(tmp_path / "deploy.prototxt"), str(tmp_path / "w.caffemodel"))
    assert list(net.crop_dims) == list(net.image_dims) == [SIZE, SIZE]
    expected = score(resize_image(images[2], (SIZE, SIZE)).transpose(2, 0, 1), weights)
    np.testing.assert_allclose(net.predict([images[2]], False)[0], expected, rtol=1e-4, atol=1e-5)


def test_grey_images(tmp_path: Path) -> None:
    weights = write_net(tmp_path, channels=1)
    net = Classifier(tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel", raw_scale=2)
    image = np.random.default_rng(7).random((SIZE, SIZE, 1)).astype(np.float32)
    np.testing.assert_allclose(net.predict([image], False)[0], score(image.transpose(2, 0, 1) * 2, weights), rtol=1e-4)


def test_what_cannot_be_classified(tmp_path: Path, images: list[npt.NDArray[np.float32]]) -> None:
    write_net(tmp_path)
    deploy, weights = tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel"
    with pytest.raises(ShapeMismatchError, match=r"takes \(3, 6, 6\) .*has \(1, 6, 6\)"):
        Classifier(deploy, weights).predict([images[0][:, :, :1]])
    with pytest.raises(ShapeMismatchError, match="images of one shape"):
        Classifier(deploy, weights).predict([images[0], images[1][:, :, :1]])
    with pytest.raises(ShapeMismatchError, match="crops of 6 x 6 .* do not fit into images of 5 x 6"):
        Classifier(deploy, weights, image_dims=(5, 6)).predict(images)
    with pytest.raises(ShapeMismatchError, match="give one value for each of the 3 channels"):
        Classifier(deploy, weights, mean=np.zeros((4, 8, 8)))
    with pytest.raises(DataError, match="there is no image"):
        Classifier(deploy, weights).predict([])
    with pytest.raises(SnapshotError, match="no such file"):
        Classifier(deploy, tmp_path / "none.caffemodel")
    text = deploy.read_text()
    (tmp_path / "loss.prototxt").write_text(
        text + 'layer { name: "sum" type: "Reduction" bottom: "score" top: "sum" }\n'
    )
    with pytest.raises(NetError, match=r"first output, 'sum', has the shape \(\), not one row for each of 4 images"):
        Classifier(tmp_path / "loss.prototxt", weights).predict(images)
    (tmp_path / "data.prototxt").write_text(
        'layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 4 dim: 3 dim: 6 dim: 6 } } }\n'
        + text.split("\n", 4)[4]
    )
    with pytest.raises(NetError, match="has no Input layer .* deploy prototxt"):
        Classifier(tmp_path / "data.prototxt", weights)

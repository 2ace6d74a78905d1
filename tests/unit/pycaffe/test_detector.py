"""Detector: windows cut out, with and without their surroundings."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from paratrain.errors import DataError, ShapeMismatchError
from paratrain.pycaffe.detector import Detector
from paratrain.pycaffe.io import load_image, resize_image
from tests.optional import need_opencv
from tests.paths import DATA
from tests.unit.pycaffe.picture_nets import SIZE, score, write_net

CHINA, FLOWER = (DATA / "images" / "images" / name for name in ("china/00.jpg", "flower/01.png"))


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    need_opencv()
    write_net(tmp_path)
    mean = np.array([10.0, 20.0, 30.0])
    return Detector(
        tmp_path / "deploy.prototxt", tmp_path / "w.caffemodel", mean=mean, raw_scale=255, channel_swap=(2, 1, 0)
    )


def test_windows_of_several_images_in_their_order(tmp_path: Path, detector: Detector) -> None:
    weights = write_net(tmp_path)
    windows = [(str(CHINA), [(3, 2, 30, 20), (0, 0, 48, 64)]), (FLOWER, np.array([[5, 5, 11, 11]] * 3))]
    found = detector.detect_windows(windows)
    assert [one["filename"] for one in found] == [str(CHINA)] * 2 + [str(FLOWER)] * 3
    assert [tuple(one["window"]) for one in found] == [(3, 2, 30, 20), (0, 0, 48, 64), *[(5, 5, 11, 11)] * 3]
    for one in found:
        top, left, bottom, right = one["window"]
        crop = resize_image(load_image(one["filename"])[top:bottom, left:right], (SIZE, SIZE))
        prepared = crop.transpose(2, 0, 1)[::-1] * 255 - np.array([10, 20, 30])[:, None, None]
        np.testing.assert_allclose(one["prediction"], score(prepared, weights), rtol=1e-3, atol=1e-4)
    assert detector.detect_windows([]) == []


def test_a_window_with_its_surroundings_is_the_middle_of_the_crop(detector: Detector) -> None:
    image = np.random.default_rng(8).random((40, 50, 3)).astype(np.float32)
    detector.configure_crop(1)
    # Of a crop of 6 pixels the window has 4: rows 10 to 20, counted with both ends 11, become 11 * 6 / 4 = 16.5 about 15.5.
    # Half of that is 8.25: rows 7.25 and 23.75, rounded 7 and 24; columns 20 to 24 (5): 18.75 and 26.25, so 19 and 26.
    found = detector.crop(image, (10, 20, 20, 24))
    np.testing.assert_array_equal(found, resize_image(image[7:24, 19:26], (6, 6)))


def test_beyond_the_rim_the_crop_shows_the_mean(detector: Detector) -> None:
    image = np.random.default_rng(9).random((40, 50, 3)).astype(np.float32)
    detector.configure_crop(2)
    # 3 times as large: rows 0 to 9 (10 of them) about 5: -10 to 20; 31 rows with both ends become 6, so 10 missing become
    # 10 * 6 / 31 = 1.9, rounded 2; those within, 21, become 4.06, so 4. Columns 44 to 53 about 49: 34 to 64, of which 16,
    # 17 with both ends, are within: 3.3, so 3, and none is missing before them.
    found = detector.crop(image, (0, 44, 9, 53))
    np.testing.assert_array_equal(found[2:, :3], resize_image(image[0:20, 34:50], (4, 3)))
    rest = np.ones((6, 6), bool)
    rest[2:, :3] = False
    # The mean of blue, green, red in values to 255, as red, green, blue to 1.
    np.testing.assert_allclose(found[rest], np.tile(np.array([30, 20, 10]) / 255, (rest.sum(), 1)), rtol=1e-6)
    np.testing.assert_array_equal(detector.crop_mean[0, 0], found[0, 0])


def test_without_context_the_crop_is_the_window(detector: Detector) -> None:
    image = np.random.default_rng(10).random((40, 50, 3)).astype(np.float32)
    np.testing.assert_array_equal(detector.crop(image, (1, 2, 5, 9)), image[1:5, 2:9])
    np.testing.assert_array_equal(detector.crop(image, (-3, -2, 5, 90)), image[:5])


def test_windows_that_cannot_be_used(detector: Detector) -> None:
    for window in ((5, 5, 5, 9), (60, 0, 65, 9), (0, 50, 9, 70), (9, 0, 5, 9), (-9, 0, 0, 9)):
        with pytest.raises(
            DataError, match=r"flower/01\.png: the window .* has no pixel of the image, which is 60 x 50"
        ):
            detector.detect_windows([(FLOWER, [window])])
    detector.configure_crop(3)
    with pytest.raises(
        ShapeMismatchError, match="context_pad 3 needs a square input larger than twice that, not 6 x 6"
    ):
        detector.detect_windows([(FLOWER, [(1, 1, 5, 5)])])
    with pytest.raises(DataError, match=r"there is no image .*nix\.png"):
        detector.detect_windows([("nix.png", [(1, 1, 5, 5)])])


def test_selective_search_is_somebody_elses(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="needs the module selective_search_ijcv_with_python.* detect_windows"):
        detector.detect_selective_search([FLOWER])
    module = types.ModuleType("selective_search_ijcv_with_python")
    asked: list[str] = []

    def get_windows(paths: list[str]) -> list[list[tuple[int, ...]]]:
        asked.extend(paths)
        return [[(1, 1, 9, 9), (2, 2, 5, 5)]] * len(paths)

    module.get_windows = get_windows  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = detector.detect_selective_search([FLOWER])
    assert asked == [str(FLOWER.absolute())] and [one["window"] for one in found] == [(1, 1, 9, 9), (2, 2, 5, 5)]

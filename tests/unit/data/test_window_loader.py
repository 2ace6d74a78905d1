from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.data import ShardedReader
from paratrain.data.images import decode, resize
from paratrain.data.window_file import read_window_file
from paratrain.data.window_loader import Region, WindowCrop, WindowLoader, warped_region
from paratrain.errors import DataError
from tests.paths import DATA

IMAGES = DATA / "images" / "images"


class TestRegion:
    """Worked out by hand, with a crop of 20 pixels whose middle 10 are the window: regions are twice as large."""

    crop = WindowCrop(20, context_pad=5)

    def test_a_window_alone_is_the_region(self):
        assert warped_region(WindowCrop(7), (3, 4, 9, 5), 10, 10) == Region((3, 4, 9, 5), 7, 7, 0, 0)

    def test_a_region_within_the_image_fills_the_crop(self):
        # 12 x 6 pixels about (36, 43): 36 +- 12, 43 +- 6
        assert warped_region(self.crop, (30, 40, 41, 45), 100, 100) == Region((24, 37, 48, 49), 20, 20, 0, 0)

    def test_a_square_about_a_wide_window(self):
        crop = WindowCrop(20, context_pad=5, square=True)
        assert warped_region(crop, (30, 40, 41, 45), 100, 100) == Region((24, 31, 48, 55), 20, 20, 0, 0)
        assert warped_region(WindowCrop(20, square=True), (30, 40, 41, 45), 100, 100).box == (30, 37, 42, 49)
        assert warped_region(WindowCrop(20, square=True), (40, 30, 45, 41), 100, 100).box == (37, 30, 49, 42)

    @pytest.mark.parametrize("mirror", [False, True])
    def test_what_lies_outside_is_left_out(self, mirror):
        # 10 x 10 about (5, 45) and (45, 45): 5 +- 10 are 21 columns from -5 on, of which 16 are there.
        # 5 columns are 5 * 20 / 21 = 4.76 of the crop, 16 are 15.24; 4 rows beyond 55 - 1 = 54 do not matter above.
        left = warped_region(self.crop, (0, 40, 9, 49), 52, 100, mirror)
        assert left == Region((0, 35, 15, 51), 16, 15, 0, 0 if mirror else 5)
        right = warped_region(self.crop, (40, 40, 49, 49), 100, 52, mirror)
        assert right == Region((35, 35, 51, 55), 20, 16, 0, 4 if mirror else 0)

    def test_rounding_never_leaves_the_crop(self):
        # 3 columns, of which the left one is missing, in 5 pixels: 1.67 -> 2 and 3.33 -> 3. In 3: 1 and 2. In 4: 1.33, 2.67.
        crop = WindowCrop(4, square=True)
        assert warped_region(crop, (-1, 2, 0, 3), 9, 9) == Region((0, 2, 1, 4), 4, 3, 0, 1)

    def test_nothing_is_left(self):
        assert warped_region(self.crop, (200, 200, 209, 209), 50, 50) is None

    @pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, -1, 3, 3), (0, 0, 10, 3), (0, 0, 3, 8)])
    def test_a_window_that_leaves_the_image(self, box):
        with pytest.raises(DataError, match=r"leaves the image, 8 x 10 \(height x width\)"):
            warped_region(WindowCrop(5), box, 8, 10)

    @given(
        size=st.integers(1, 30),
        pad=st.integers(0, 14),
        square=st.booleans(),
        box=st.tuples(*[st.integers(-20, 80)] * 2, *[st.integers(0, 60)] * 2),
        height=st.integers(1, 70),
        width=st.integers(1, 70),
        mirror=st.booleans(),
    )
    def test_regions_lie_within_image_and_crop(self, size, pad, square, box, height, width, mirror):
        pad = min(pad, (size - 1) // 2)
        crop = WindowCrop(size, pad, square or pad == 0)
        box = (box[0], box[1], box[0] + box[2], box[1] + box[3])
        region = warped_region(crop, box, height, width, mirror)
        if region is None:
            return
        x1, y1, x2, y2 = region.box
        assert 0 <= x1 <= x2 < width
        assert 0 <= y1 <= y2 < height
        assert region.left >= 0 < region.width <= size - region.left
        assert region.top >= 0 < region.height <= size - region.top


FILE = """\
# 0
china/02.png
3
0
0
3
1 0.9 4 6 27 29
2 0.6 0 0 20 30
0 0.1 8 8 12 30
# 1
flower/01.png
3
0
0
2
7 0.7 2 2 22 12
0 0 20 5 29 29
"""
FOREGROUND = [
    ("china/02.png", (4, 6, 27, 29), 1),
    ("china/02.png", (0, 0, 20, 30), 2),
    ("flower/01.png", (2, 2, 22, 12), 7),
]
BACKGROUND = [("china/02.png", (8, 8, 12, 30), 0), ("flower/01.png", (20, 5, 29, 29), 0)]


class TestLoader:
    @pytest.fixture(autouse=True)
    def _prepare(self, tmp_path):
        pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
        self.path = tmp_path / "windows.txt"
        self.path.write_text(FILE)

    def loader(self, rank=0, size=1, crop=None, **settings):
        windows = read_window_file(str(self.path), 0.5, 0.5)
        reader = ShardedReader(1, rank, size)
        settings = {"root_folder": f"{IMAGES}/", "seed": 3, "layer_name": "w", **settings}
        return WindowLoader(str(self.path), windows, reader, crop or WindowCrop(12), **settings)

    @staticmethod
    def batch(loader, number, batch_size, dtype=np.float32):
        data = np.full((batch_size, *loader.image_shape), np.nan, dtype)
        labels = np.full(batch_size, np.nan, dtype)
        loader.fill(number, data, labels)
        return data, labels

    @staticmethod
    def warped(windows, size=12):
        found = []
        for path, (x1, y1, x2, y2), label in windows:
            image = decode((IMAGES / path).read_bytes(), color=True)
            found.append((resize(image[:, y1 : y2 + 1, x1 : x2 + 1], size, size).astype(np.float32), label))
        return found

    def test_batches_are_background_and_then_foreground_warped(self):
        """Each image is one of the windows of its kind; over 40 batches each of these comes about as often."""
        loader = self.loader(fg_fraction=0.4)
        assert loader.image_shape == (3, 12, 12)
        assert loader.counts(8) == (5, 3)
        counts = {}
        for number in range(40):
            data, labels = self.batch(loader, number, 8)
            for i in range(8):
                kind = self.warped(BACKGROUND if i < 5 else FOREGROUND)
                (match,) = [
                    k
                    for k, (pixels, label) in enumerate(kind)
                    if label == labels[i] and np.array_equal(pixels, data[i])
                ]
                counts[i < 5, match] = counts.get((i < 5, match), 0) + 1
        assert sorted(counts) == [(False, 0), (False, 1), (False, 2), (True, 0), (True, 1)]
        for (is_background, _), count in counts.items():
            wanted = 200 / 2 if is_background else 120 / 3
            assert abs(count - wanted) < 5 * wanted**0.5

    @pytest.mark.parametrize("fg_fraction", [0.5, 0.25, 0.1, 0.99])
    def test_the_ranks_together_draw_what_one_rank_draws(self, fg_fraction):
        """Whether or not each rank's share of the foreground is a whole number."""
        settings = {"fg_fraction": fg_fraction, "mirror": True}
        one = self.loader(**settings)
        ranks = [self.loader(rank, 3, **settings) for rank in range(3)]
        for number in range(4):
            data, labels = self.batch(one, number, 12)
            parts = [self.batch(rank, number, 4) for rank in ranks]
            assert np.array_equal(np.stack([part[0] for part in parts], axis=1).reshape(data.shape), data)
            assert np.array_equal(np.stack([part[1] for part in parts], axis=1).ravel(), labels)

    def test_draws_depend_on_seed_layer_and_batch_alone(self):
        def labels(number=2, **settings):
            return self.batch(self.loader(fg_fraction=1, **settings), number, 40)[1].tolist()

        assert labels() == labels()
        assert len({tuple(drawn) for drawn in (labels(), labels(3), labels(seed=4), labels(layer_name="v"))}) == 4

    def test_half_are_mirrored(self):
        plain, labels = self.batch(self.loader(), 0, 200)
        mirrored, same_labels = self.batch(self.loader(mirror=True), 0, 200)
        assert labels.tolist() == same_labels.tolist()
        turned = 0
        for i in range(200):
            if not np.array_equal(mirrored[i], plain[i]):
                assert np.array_equal(mirrored[i], plain[i, :, :, ::-1])
                turned += 1
        assert 70 < turned < 130

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_mean_and_scale(self, dtype):
        plain, _ = self.batch(self.loader(), 0, 20, dtype)
        values = np.array([10, 20, 30], np.float32).reshape(3, 1, 1)
        data, _ = self.batch(self.loader(mean=values, scale=0.5), 0, 20, dtype)
        assert np.array_equal(data, (plain - values) * dtype(0.5))
        mean = np.random.default_rng(1).integers(0, 256, (3, 20, 17)).astype(np.float32)
        data, _ = self.batch(self.loader(mean=mean, mirror=True), 0, 20, dtype)
        without, _ = self.batch(self.loader(mirror=True), 0, 20, dtype)
        assert np.array_equal(data, without - mean[:, 2:14, 2:14]), "(17 - 12) // 2 from the top and the left"
        with pytest.raises(DataError, match=r"the mean has the shape \(3, 11, 30\) .* crops of 12 x 12"):
            self.loader(mean=np.zeros((3, 11, 30), np.float32))

    def test_what_lies_outside_the_image_stays_zero(self):
        """Also with a mean. The image's part is where the region says, and is the image's pixels, resized."""
        mean = np.full((3, 1, 1), 300, np.float32)
        crop = WindowCrop(12, context_pad=4, square=True)
        for mirror in (False, True):
            data, labels = self.batch(self.loader(crop=crop, mean=mean, fg_fraction=1, mirror=mirror), 0, 30)
            seen = set()
            for pixels, label in zip(data, labels, strict=True):
                path, box, _ = next(window for window in FOREGROUND if window[2] == label)
                image = decode((IMAGES / path).read_bytes(), color=True)
                matches = []
                for turned in {False, mirror}:
                    region = warped_region(crop, box, image.shape[1], image.shape[2], turned)
                    x1, y1, x2, y2 = region.box
                    part = resize(image[:, y1 : y2 + 1, x1 : x2 + 1], region.height, region.width).astype(np.float32)
                    wanted = np.zeros((3, 12, 12), np.float32)
                    place = np.s_[:, region.top : region.top + region.height, region.left : region.left + region.width]
                    wanted[place] = (part[:, :, ::-1] if turned else part) - 300
                    matches.append(np.array_equal(pixels, wanted))
                assert any(matches)
                seen.add((label, matches.index(True)))
                assert (pixels == 0).any(), "every one of these regions leaves its image"
            assert len(seen) == (6 if mirror else 3)

    def test_cached_images_are_read_once(self, tmp_path):
        for path in ("china/02.png", "flower/01.png"):
            (tmp_path / path).parent.mkdir()
            (tmp_path / path).write_bytes((IMAGES / path).read_bytes())
        loaders = [self.loader(root_folder=f"{tmp_path}/", cache=cache) for cache in (True, False)]
        before = [self.batch(loader, 0, 30) for loader in loaders]
        for path in ("china/02.png", "flower/01.png"):
            (tmp_path / path).unlink()
        again = self.batch(loaders[0], 0, 30)
        assert np.array_equal(again[0], before[0][0])
        with pytest.raises(
            DataError, match=r"windows.txt:\d+ \('[a-z]*/0[12].png'\): there is no image .*/[a-z]*/0[12].png"
        ):
            self.batch(loaders[1], 0, 30)

    def test_a_window_beyond_the_image_names_its_line(self):
        self.path.write_text(FILE.replace("20 5 29 29", "20 5 999 29").replace("0 0.1 8", "9 0.5 8"))
        with pytest.raises(
            DataError, match=r"windows.txt:17 \('flower/01.png'\): the window 20 5 999 29 leaves the image"
        ):
            self.batch(self.loader(fg_fraction=0), 0, 1)

    def test_a_kind_of_which_there_is_none(self):
        self.path.write_text(FILE.replace("0 0.1 8 8 12 30", "8 0.7 8 8 12 30").replace("0 0 20 5", "8 0.7 20 5"))
        assert self.loader(fg_fraction=1).counts(4) == (0, 4)
        with pytest.raises(
            DataError, match=r"windows.txt: 3 of a batch of 4 should be background, and no window is.*bg_thr"
        ):
            self.loader().counts(4)

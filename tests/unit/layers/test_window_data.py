from __future__ import annotations

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.errors import DataError, LayerError
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST, TRAIN, array_to_blob, write_binary
from tests.gradient_check import set_up_layer
from tests.paths import DATA

ROOT = f"{DATA / 'images' / 'images'}/"
FILE = """\
# 0
china/02.png
3
0
0
3
1 0.9 4 6 27 29
0 0.1 8 8 12 30
5 0.4 1 1 9 9
"""


@pytest.fixture(autouse=True)
def _prepare(tmp_path, monkeypatch):
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "windows.txt").write_text(FILE)


def set_up(text, phase=TRAIN, **context):
    return set_up_layer(
        text, [], context=LayerContext(create_backend("numpy"), phase, **{"dtype": np.float32, **context})
    )


def window_data(parameter="", transform="crop_size: 10"):
    defaults = {"source": "'windows.txt'", "root_folder": f"'{ROOT}'", "batch_size": 8}
    given = " ".join(f"{name}: {value}" for name, value in defaults.items() if f"{name}:" not in parameter)
    return (
        f'type: "WindowData" name: "w" top: "data" top: "label" transform_param {{ {transform} }} '
        f"window_data_param {{ {given} {parameter} }}"
    )


def forward(text, count=1, phase=TRAIN, **context):
    run = set_up(text, phase, **context)
    batches = [run.forward() for _ in range(count)]
    run.layer.close()
    return batches


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_a_quarter_is_foreground_by_default(phase):
    for data, labels in forward(window_data(), 3, phase):
        assert data.shape == (8, 3, 10, 10)
        assert labels.tolist() == [0] * 6 + [1] * 2
        assert np.array_equal(data[6], data[7])


def test_thresholds_and_fraction_are_read():
    labels = np.concatenate([labels for _, labels in forward(window_data("fg_threshold: 0.3 fg_fraction: 1"), 5)])
    assert set(labels.tolist()) == {1, 5}
    between = window_data("bg_threshold: 0.3")
    background = forward(between)[0][0][:6]
    assert all(np.array_equal(image, background[0]) for image in background), "only one window lies below 0.3"


def test_ranks_draw_windows_of_their_own_in_training_and_the_same_in_testing():
    text = window_data("fg_threshold: 0.3 fg_fraction: 1 batch_size: 24")
    drawn = {
        (phase, rank): forward(text, 1, phase, rank=rank, size=2)[0][1].tolist()
        for phase in (TRAIN, TEST)
        for rank in (0, 1)
    }
    assert drawn[TRAIN, 0] != drawn[TRAIN, 1]
    assert drawn[TEST, 0] == drawn[TEST, 1]


def test_mean_and_scale():
    ((plain, _),) = forward(window_data())
    ((data, _),) = forward(
        window_data("scale: 0.5", "crop_size: 10 mean_value: 3 mean_value: 4 mean_value: 5 scale: 7")
    )
    assert np.array_equal(data, (plain - np.array([3, 4, 5], np.float32).reshape(3, 1, 1)) * np.float32(0.5))
    mean = np.random.default_rng(1).random((1, 3, 12, 12), np.float32)
    write_binary("mean.binaryproto", array_to_blob(mean))
    ((data, _),) = forward(window_data("", "crop_size: 10 mean_file: 'mean.binaryproto' scale: 0.25"))
    assert np.array_equal(data, (plain - mean[0, :, 1:11, 1:11]) * np.float32(0.25))


def test_crop_modes_and_context():
    ((warp, _),) = forward(window_data("context_pad: 2 bg_threshold: 0.3"))
    ((square, _),) = forward(window_data("context_pad: 2 bg_threshold: 0.3 crop_mode: 'square' cache_images: true"))
    assert not np.array_equal(warp[0], square[0])
    assert np.array_equal(warp[6], square[6]), "that one is square already"


def test_a_missing_image_is_an_error_of_the_forward_that_needs_it():
    run = set_up(window_data("root_folder: 'nowhere/' bg_threshold: 0.3"))
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"layer 'w' \(WindowData\): windows.txt:8 .*there is no image nowhere/china/02.png"
        ):
            run.forward()
    run.layer.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (window_data("source: ''"), r"layer 'w' \(WindowData\): no window file is named"),
        (window_data("source: 'none.txt'"), r"layer 'w' \(WindowData\): none.txt: the window file cannot be read"),
        (window_data("batch_size: 0"), "no batch_size"),
        (window_data(transform=""), "transform_param has no crop_size"),
        (window_data("crop_mode: 'round'"), "crop_mode is 'round'; it can be warp or square"),
        (window_data("context_pad: 5"), "context_pad 5 on each side leaves nothing of crop_size 10"),
        (window_data("fg_fraction: 1.5"), "fg_fraction is 1.5; it is a share"),
        (
            window_data("fg_threshold: 0.95"),
            r"layer 'w' \(WindowData\): windows.txt: 2 of a batch of 8 should be foreground",
        ),
        (window_data("", "crop_size: 10 mean_value: 1 mean_file: 'x'"), r"layer 'w' .*both mean_file and mean_value"),
        (window_data("", "crop_size: 10 mean_value: 1 mean_value: 2"), r"the mean has the shape \(2, 1, 1\)"),
        (window_data("", "crop_size: 10 crop_h: 3"), r"layer 'w' .*crop_h .* is not applied"),
    ],
)
def test_layers_that_cannot_be(text, message):
    with pytest.raises((DataError, LayerError), match=message):
        set_up(text)


def test_the_windows_of_the_last_batch_are_named():
    run = set_up(window_data())
    labels = run.forward()[1]
    lines = {"7": 1, "8": 0, "9": 0}  # windows of the background are of class 0
    keys = run.layer.last_keys()
    assert run.layer.record_count == 3
    assert [lines[key.split("(line ")[1][:-1]] for key in keys] == labels.tolist()
    assert all(key.startswith("china/02.png ") for key in keys)

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.errors import DataError, LayerError
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST, TRAIN, NetParameter
from tests.gradient_check import set_up_layer
from tests.paths import DATA, GOLDEN

IMAGES = DATA / "images"


@pytest.fixture(autouse=True)
def _prepare(monkeypatch):
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    monkeypatch.chdir(IMAGES)


def set_up(text, phase=TRAIN, **context):
    return set_up_layer(
        text, [], context=LayerContext(create_backend("numpy"), phase, **{"dtype": np.float32, **context})
    )


def image_data(parameter="", rest="", batch_size=4):
    defaults = {"source": '"list.txt"', "root_folder": '"images/"'}
    given = " ".join(f"{name}: {value}" for name, value in defaults.items() if f"{name}:" not in parameter)
    return (
        f'type: "ImageData" name: "d" top: "data" top: "label" {rest} '
        f"image_data_param {{ {given} batch_size: {batch_size} {parameter} }}"
    )


SMALL = "new_height: 8 new_width: 6"


def test_it_hands_out_what_caffe_did():
    (parameter,) = text_format.Parse((GOLDEN / "data" / "image_data.prototxt").read_text(), NetParameter()).layer
    run = set_up(parameter, TEST)
    with np.load(GOLDEN / "data" / "image_data.npz") as expected:
        for batch in range(4):
            for top, values in zip(parameter.top, run.forward(), strict=True):
                wanted = expected[f"{batch}/{top}"]
                assert values.shape == wanted.shape
                np.testing.assert_allclose(values, wanted, rtol=0, atol=2.01, err_msg=f"{batch}/{top}")
    run.layer.close()


def test_resized_images_are_transformed():
    plain = set_up(image_data(SMALL), TEST)
    run = set_up(image_data(SMALL, "transform_param { crop_size: 4 scale: 0.5 mean_value: 9 }"), TEST)
    assert np.array_equal(run.forward()[0], (plain.forward()[0][:, :, 2:6, 1:5] - 9) * np.float32(0.5))
    run.layer.close()
    plain.layer.close()


def test_grey_images_have_one_channel():
    run = set_up(image_data(f"{SMALL} is_color: false"))
    assert run.tops[0].shape == (4, 1, 8, 6)
    run.forward()
    run.layer.close()


@pytest.fixture
def numbered(tmp_path):
    """A list of 10 images with their numbers as labels."""
    source = IMAGES / "images" / "china" / "02.png"
    lines = []
    for i in range(10):
        shutil.copy(source, tmp_path / f"{i}.png")
        lines.append(f"{tmp_path}/{i}.png {i}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return f'source: "{tmp_path}/list.txt" root_folder: "" {SMALL}'


def labels_of(parameter, forward_count, batch_size=2, phase=TRAIN, **context):
    run = set_up(image_data(parameter, batch_size=batch_size), phase, **context)
    labels = [run.forward()[1].astype(int).tolist() for _ in range(forward_count)]
    run.layer.close()
    return labels


def test_ranks_take_turns_in_training_and_read_everything_in_testing(numbered):
    assert labels_of(numbered, 3, rank=0, size=2) == [[0, 2], [4, 6], [8, 0]]
    assert labels_of(numbered, 3, rank=1, size=2) == [[1, 3], [5, 7], [9, 1]]
    assert labels_of(numbered, 2, 6, TEST, rank=1, size=2) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 1]]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shuffled_epochs_hold_every_image_once_over_all_ranks(numbered, size):
    one = np.concatenate(labels_of(f"{numbered} shuffle: true", 6, 5, seed=4))
    assert [sorted(epoch) for epoch in one.reshape(3, 10).tolist()] == [list(range(10))] * 3
    assert len({tuple(epoch) for epoch in one.reshape(3, 10).tolist()}) == 3
    ranks = [
        labels_of(f"{numbered} shuffle: true", 30 // size, 1, rank=rank, size=size, seed=4) for rank in range(size)
    ]
    assert np.stack(ranks, axis=1).ravel().tolist() == one.tolist()


def test_testing_shuffles_too_but_whole(numbered):
    labels = labels_of(f"{numbered} shuffle: true", 1, 10, TEST, rank=1, size=3)[0]
    assert sorted(labels) == list(range(10)) != labels


def test_rand_skip_moves_the_start_of_all_ranks_alike(numbered):
    starts = set()
    for seed in range(20):
        ranks = [labels_of(f"{numbered} rand_skip: 4", 1, seed=seed, rank=rank, size=2)[0] for rank in range(2)]
        assert ranks[1] == [label + 1 for label in ranks[0]]
        starts.add(ranks[0][0])
    assert starts == {0, 1, 2, 3}


def test_seek_goes_on_where_another_run_stopped(numbered):
    labels = labels_of(f"{numbered} shuffle: true", 9, 3)
    run = set_up(image_data(f"{numbered} shuffle: true", batch_size=3))
    run.layer.seek(7)
    assert [run.forward()[1].tolist() for _ in range(2)] == labels[7:]
    run.layer.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "paratrain-prefetch"]


def test_a_missing_image_is_an_error_of_the_forward_that_needs_it(numbered, tmp_path):
    (tmp_path / "5.png").unlink()
    run = set_up(image_data(numbered))
    run.forward()
    with pytest.raises(
        DataError, match=r"layer 'd' \(ImageData\): .*list.txt:6 \('.*/5.png'\): there is no image .*5.png"
    ):
        run.forward()
    run.layer.close()


def test_images_of_other_sizes_name_their_line(tmp_path):
    (tmp_path / "sizes.txt").write_text("china/00.jpg 0\nsmall.png 1\n")
    import cv2

    for folder in ("china", "."):
        (tmp_path / folder).mkdir(exist_ok=True)
    shutil.copy(IMAGES / "images" / "china" / "00.jpg", tmp_path / "china")
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((3, 4, 3), np.uint8))
    run = set_up(image_data(f'source: "{tmp_path}/sizes.txt" root_folder: "{tmp_path}/"'))
    with pytest.raises(
        DataError, match=r"sizes.txt:2 \('small.png'\): the shape \(3, 3, 4\).* is not that of the first"
    ):
        run.forward()
    run.layer.close()


def test_shapes_only_opens_no_thread_and_takes_no_batches():
    run = set_up(image_data(SMALL, batch_size=10_000_000), shapes_only=True)
    assert [top.shape for top in run.tops] == [(10_000_000, 3, 8, 6), (10_000_000,)]
    run.layer.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (image_data('source: ""'), r"layer 'd' \(ImageData\): no list of images is named"),
        (image_data('source: "none.txt"'), r"layer 'd' \(ImageData\): none.txt: the list of images cannot be read"),
        (image_data("new_width: 3"), "new_height is 0 and new_width 3; give both, or neither"),
        (image_data(batch_size=0), "no batch_size"),
        (
            image_data('root_folder: "image/"'),
            r"layer 'd' \(ImageData\): list.txt:1 \('china/00.jpg'\): there is no image",
        ),
        (image_data(rest="transform_param { crop_size: 999 }"), r"list.txt:1 .* smaller than crop_size 999"),
    ],
)
def test_layers_that_cannot_be(text, message):
    with pytest.raises((DataError, LayerError), match=message):
        set_up(text)


def test_the_records_of_the_last_batch_are_named():
    layer = (run := set_up(image_data(SMALL), TRAIN, rank=1, size=2)).layer
    names = [line.rsplit(None, 1)[0] for line in (IMAGES / "list.txt").read_text().splitlines() if line.strip()]
    assert layer.record_count == len(names)
    assert layer.last_keys() == []
    for _ in range(2):
        run.forward()
    assert layer.last_keys() == [names[i % len(names)] for i in (9, 11, 13, 15)]
    before, again = run.forward()[0].copy(), layer.next_batch - 1  # reading goes on where it was
    layer.seek(again)
    np.testing.assert_array_equal(run.forward()[0], before)

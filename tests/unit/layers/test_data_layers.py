"""Data, Input, DummyData and MemoryData."""

from __future__ import annotations

import contextlib
import gc
import threading

import numpy as np
import pytest
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.blob import Blob
from paratrain.data import LmdbWriter, array_to_datum
from paratrain.data.leveldb import load_plyvel
from paratrain.errors import DataError, LayerError, MissingDependencyError
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST, TRAIN, NetParameter
from tests.gradient_check import set_up_layer
from tests.paths import DATA, GOLDEN
from tests.unit.net.build import build


def set_up(text, phase=TRAIN, **context):
    return set_up_layer(
        text, [], context=LayerContext(create_backend("numpy"), phase, **{"dtype": np.float32, **context})
    )


# -- Data


def test_batches_of_one_image_take_its_size(tmp_path):
    """Nets of convolutions only are fed one image at a time, each of its own size."""
    random = np.random.default_rng(3)
    images = [random.integers(0, 256, (2, h, w), np.uint8) for h, w in [(4, 5), (7, 6), (3, 3), (7, 6), (9, 2)]]
    with LmdbWriter(tmp_path / "db") as database:
        for i, image in enumerate(images):
            database.put(b"%08d" % i, array_to_datum(image, i).SerializeToString())
    text = f"""force_backward: true
        layer {{ name: "data" type: "Data" top: "data" top: "label"
                data_param {{ source: "{tmp_path / "db"}" batch_size: 1 backend: LMDB prefetch: 3 }} }}
        layer {{ name: "flat" type: "Flatten" bottom: "data" top: "flat" }}
        layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
                convolution_param {{ num_output: 1 kernel_size: 2 weight_filler {{ value: 1 }} }} }}"""
    with contextlib.closing(build(text)) as net:
        for i in range(2 * len(images)):
            image = images[i % len(images)].astype(np.float32)
            out = net.forward()
            np.testing.assert_array_equal(net.blobs["data"].data[0], image)
            np.testing.assert_array_equal(out["flat"][0], image.reshape(-1))
            np.testing.assert_array_equal(out["label"], [i % len(images)])
            windows = np.lib.stride_tricks.sliding_window_view(image, (2, 2), axis=(1, 2))
            np.testing.assert_allclose(out["conv"][0, 0], windows.sum(axis=(0, 3, 4)), rtol=1e-6)
            net.blobs["conv"].diff[...] = 1
            net.backward()
            assert net.blobs["data"].diff.shape == (1, *image.shape)


def test_larger_batches_need_one_size(tmp_path):
    with LmdbWriter(tmp_path / "db") as database:
        for i, shape in enumerate([(1, 2, 2), (1, 2, 3)]):
            database.put(b"%08d" % i, array_to_datum(np.zeros(shape, np.uint8), i).SerializeToString())
    run = set_up(f'type: "Data" top: "x" data_param {{ source: "{tmp_path / "db"}" batch_size: 2 backend: LMDB }}')
    with pytest.raises(
        DataError, match=r"all images must have the same size, be cropped to it .* or come one at a time"
    ):
        run.forward()
    run.layer.close()


@pytest.mark.parametrize(
    "name", ["raw", "gray", "wrap_around", "scale_mean_value", "mean_file_crop", "png", "jpg", "leveldb"]
)
def test_the_data_layer_hands_out_what_caffe_did(name, monkeypatch):
    if name in ("png", "jpg"):
        pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    if name == "leveldb":
        try:
            load_plyvel()
        except MissingDependencyError:
            pytest.skip("no plyvel is installed (the extra 'leveldb')")
    monkeypatch.chdir(DATA / "images")
    (parameter,) = text_format.Parse((GOLDEN / "data" / f"{name}.prototxt").read_text(), NetParameter()).layer
    run = set_up(parameter, TEST)
    tolerance = 2.01 if name == "jpg" else 1e-4 if name == "mean_file_crop" else 0
    with np.load(GOLDEN / "data" / f"{name}.npz") as expected:
        for batch in range(4):
            for top, values in zip(parameter.top, run.forward(), strict=True):
                wanted = expected[f"{batch}/{top}"]
                assert values.shape == wanted.shape
                np.testing.assert_allclose(values, wanted, rtol=0, atol=tolerance, err_msg=f"{batch}/{top}")
    run.layer.close()


@pytest.fixture
def numbered(tmp_path):
    """An LMDB of 10 images of 1 x 2 x 2 whose pixels and labels are their numbers."""
    with LmdbWriter(tmp_path / "numbered_lmdb") as database:
        for i in range(10):
            database.put(b"%08d" % i, array_to_datum(np.full((1, 2, 2), i, np.uint8), i).SerializeToString())
    return tmp_path / "numbered_lmdb"


def data_layer(source, rest="", batch_size=3):
    return (
        f'type: "Data" name: "d" data_param {{ source: "{source}" backend: LMDB batch_size: {batch_size} {rest} }} '
        'top: "data" top: "label"'
    )


def labels_of(run, forward_count):
    return [run.forward()[1].astype(int).tolist() for _ in range(forward_count)]


def test_ranks_take_turns_in_training_and_read_everything_in_testing(numbered):
    runs = [set_up(data_layer(numbered), TRAIN, rank=rank, size=2) for rank in range(2)]
    assert labels_of(runs[0], 3) == [[0, 2, 4], [6, 8, 0], [2, 4, 6]]
    assert labels_of(runs[1], 3) == [[1, 3, 5], [7, 9, 1], [3, 5, 7]]
    test = set_up(data_layer(numbered), TEST, rank=1, size=2)
    assert labels_of(test, 2) == [[0, 1, 2], [3, 4, 5]]
    for run in (*runs, test):
        run.layer.close()


def test_rand_skip_moves_the_start_of_all_ranks_alike(numbered):
    starts = set()
    for seed in range(20):
        runs = [set_up(data_layer(numbered, "rand_skip: 4"), seed=seed, rank=rank, size=2) for rank in range(2)]
        (first,), (second,) = (labels_of(run, 1) for run in runs)
        assert second == [label + 1 for label in first]
        starts.add(first[0])
        for run in runs:
            run.layer.close()
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize("prefetch", [0, 1, 2, 4])
def test_tops_show_the_ring_without_a_copy_and_views_follow(numbered, prefetch):
    run = set_up(data_layer(numbered, f"prefetch: {prefetch}"))
    view = Blob((3, 4))
    view.share_data(run.tops[0])
    addresses = set()
    for batch in range(9):
        run.layer.forward([], run.tops)
        wanted = [(3 * batch + i) % 10 for i in range(3)]
        assert run.tops[0].data[:, 0, 0, 0].tolist() == wanted
        assert view.data[:, 3].tolist() == wanted
        assert run.tops[1].data.tolist() == wanted
        addresses.add(run.tops[0].data.ctypes.data)
    assert len(addresses) == max(1, prefetch)
    run.layer.close()
    assert run.tops[1].data.tolist() == wanted, "the last batch stays"


def test_tops_that_the_net_has_moved_are_written_to(numbered):
    run = set_up(data_layer(numbered))
    run.tops[0].use_memory(data=Blob((3, 1, 2, 2)).data_memory)
    for batch in range(5):
        run.layer.forward([], run.tops)
        assert (
            run.tops[0].data[:, 0, 1, 1].tolist()
            == run.tops[1].data.tolist()
            == [(3 * batch + i) % 10 for i in range(3)]
        )
    run.layer.close()


def test_one_top_is_enough(numbered):
    text = data_layer(numbered).replace('top: "label"', "")
    run = set_up(text, dtype=np.float64)
    (values,) = run.forward()
    assert (values.dtype, values.shape) == (np.float64, (3, 1, 2, 2))
    run.layer.close()


def test_seek_goes_on_where_another_run_stopped(numbered):
    run = set_up(data_layer(numbered))
    labels = labels_of(run, 6)
    assert run.layer.next_batch == 6
    run.layer.close()
    resumed = set_up(data_layer(numbered))
    resumed.layer.seek(4)
    assert labels_of(resumed, 2) == labels[4:]
    resumed.layer.close()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "paratrain-prefetch"]


def test_the_thread_ends_with_the_layer(numbered):
    run = set_up(data_layer(numbered))
    run.forward()
    assert len(threads()) == 1
    run.layer.close()
    assert not threads()
    run = set_up(data_layer(numbered))
    run.forward()
    del run
    gc.collect()
    assert not threads()


def test_a_bad_record_is_an_error_of_the_forward_that_needs_it(numbered, tmp_path):
    with LmdbWriter(tmp_path / "bad_lmdb") as database:
        for i in range(10):
            good = array_to_datum(np.full((1, 2, 2), i, np.uint8), i).SerializeToString()
            database.put(b"%08d" % i, good if i != 7 else b"garbage")
    run = set_up(data_layer(tmp_path / "bad_lmdb"))
    assert labels_of(run, 2) == [[0, 1, 2], [3, 4, 5]]
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"layer 'd' \(Data\): .*bad_lmdb: record 7 \(key '00000007'\): 7 bytes that"
        ):
            run.forward()
    run.layer.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (data_layer("nowhere_lmdb"), r"layer 'd' \(Data\): nowhere_lmdb: no such database"),
        ('type: "Data" name: "d" data_param { batch_size: 1 }', r"layer 'd' \(Data\): no database is named"),
        (data_layer("x", batch_size=0), "no batch_size"),
        (data_layer("x") + " transform_param { mean_value: 1 mean_file: 'm' }", "both mean_file and mean_value"),
    ],
)
def test_data_layers_that_cannot_be(text, message):
    with pytest.raises((DataError, LayerError), match=message):
        set_up(text)


# -- Input


def test_input_shapes_one_for_all_or_one_each():
    tops = 'type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } '
    assert [top.shape for top in set_up(tops + "}").tops] == [(2, 3), (2, 3)]
    run = set_up(tops + "shape { dim: 4 } }")
    assert [top.shape for top in run.tops] == [(2, 3), (4,)]
    run.tops[0].data[...] = 5
    run.forward()
    assert run.tops[0].data.tolist() == [[5] * 3] * 2
    run.tops[0].reshape(7, 3)
    run.layer.reshape([], run.tops)
    assert run.tops[0].shape == (7, 3), "the user's shape stays"
    with pytest.raises(LayerError, match="3 shapes for 2 tops"):
        set_up(tops + "shape { dim: 1 } shape { dim: 1 } }")


# -- DummyData


def test_dummy_data_constants_are_filled_once_and_others_each_time():
    run = set_up(
        'type: "DummyData" top: "a" top: "b" dummy_data_param { shape { dim: 3 dim: 4 } shape { dim: 5 } '
        'data_filler { value: 2.5 } data_filler { type: "gaussian" } }'
    )
    assert run.tops[0].data.tolist() == [[2.5] * 4] * 3
    first, second = run.forward(), run.forward()
    assert first[0].tolist() == second[0].tolist() == [[2.5] * 4] * 3
    assert not np.array_equal(first[1], second[1])
    run.tops[0].data[...] = 1
    assert run.forward()[0].tolist() == [[1] * 4] * 3


def test_dummy_data_is_the_same_in_every_run_and_another_on_every_rank():
    text = 'type: "DummyData" top: "a" dummy_data_param { shape { dim: 50 } data_filler { type: "uniform" } }'
    drawn = [set_up(text, rank=rank, seed=1).forward()[0] for rank in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_dummy_data_takes_the_old_axes_and_one_of_each_for_all_tops():
    run = set_up(
        'type: "DummyData" top: "a" top: "b" dummy_data_param { num: 2 num: 6 channels: 3 channels: 1 height: 4 height: 1 '
        'width: 5 width: 1 data_filler { type: "constant" value: 3 } }'
    )
    assert [top.shape for top in run.tops] == [(2, 3, 4, 5), (6, 1, 1, 1)]
    assert run.tops[1].data.ravel().tolist() == [3] * 6
    run = set_up(
        'type: "DummyData" top: "a" top: "b" dummy_data_param { num: 2 num: 6 channels: 3 height: 4 width: 5 }'
    )
    assert [top.shape for top in run.tops] == [(2, 3, 4, 5), (6, 3, 4, 5)]
    run = set_up('type: "DummyData" top: "a" top: "b" dummy_data_param { num: 2 channels: 3 height: 4 width: 5 }')
    assert [top.shape for top in run.tops] == [(2, 3, 4, 5)] * 2
    assert not run.forward()[0].any()


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("", "0 shapes for 2 tops"),
        ("shape { dim: 1 } num: 1 channels: 1 height: 1 width: 1", "both shape and num"),
        ("num: 1 channels: 1 height: 1", "gives width 0 times for 2 tops"),
        ("num: 1 num: 1 num: 1 channels: 1 height: 1 width: 1", "gives num 3 times for 2 tops"),
        ("shape { dim: 1 } data_filler { } data_filler { } data_filler { }", "data_filler is given 3 times for 2 tops"),
    ],
)
def test_dummy_data_that_cannot_be(parameter, message):
    with pytest.raises(LayerError, match=message):
        set_up(f'type: "DummyData" top: "a" top: "b" dummy_data_param {{ {parameter} }}')


# -- MemoryData

MEMORY = (
    'type: "MemoryData" name: "m" top: "data" top: "label" '
    "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } transform_param { scale: 0.5 }"
)


def samples(count):
    return np.arange(count * 6, dtype=np.float32).reshape(count, 1, 2, 3), np.arange(count, dtype=np.float32)


def test_memory_data_hands_out_its_arrays_in_turn(caplog):
    run = set_up(MEMORY)
    data, labels = samples(6)
    run.layer.reset(data, labels.reshape(6, 1, 1, 1))
    assert [record.getMessage() for record in caplog.records] == [
        "Layer 'm' (MemoryData): transform_param is not applied to arrays; transform them before, or add Datums"
    ]
    for start in (0, 2, 4, 0):
        top, label = run.forward()
        assert np.array_equal(top, data[start : start + 2])
        assert label.tolist() == [start, start + 1]
    run.layer.reset(data[4:], labels[4:])
    assert run.forward()[1].tolist() == [4, 5]
    assert len(caplog.records) == 1, "once is enough"


def test_memory_data_transforms_what_is_added_and_waits_until_it_is_used():
    run = set_up(MEMORY)
    datums = [array_to_datum(np.full((1, 2, 3), 10 * i, np.uint8), i) for i in range(4)]
    run.layer.add(datums)
    assert run.forward()[0][1].ravel().tolist() == [5] * 6
    with pytest.raises(DataError, match="have not all been handed out"):
        run.layer.add(datums)
    assert run.forward()[1].tolist() == [2, 3]
    run.layer.add(datums[2:])
    assert run.forward()[1].tolist() == [2, 3]
    with pytest.raises(DataError, match=r"layer 'm' \(MemoryData\): Datum 1: expected the shape \(1, 2, 3\)"):
        run.layer.add([datums[0], array_to_datum(np.zeros((1, 3, 3), np.uint8))])


def test_memory_data_that_does_not_fit():
    run = set_up(MEMORY)
    with pytest.raises(DataError, match=r"layer 'm' \(MemoryData\): there are no samples yet"):
        run.forward()
    data, labels = samples(4)
    for bad_data, bad_labels, message in [
        (data[:3], labels[:3], "3 samples, no multiple of batch_size, 2"),
        (data[:0], labels[:0], "0 samples"),
        (data, labels[:3], r"a label for each of 4 samples, found shape \(3,\)"),
        (data.reshape(4, 1, 3, 2), labels, r"expected data of the shape \(n, 1, 2, 3\), found \(4, 1, 3, 2\)"),
        (data.reshape(4, 6), labels, r"found \(4, 6\)"),
    ]:
        with pytest.raises(DataError, match=message):
            run.layer.reset(bad_data, bad_labels)
    with pytest.raises(LayerError, match="needs batch_size, channels, height and width"):
        set_up('type: "MemoryData" top: "a" top: "b" memory_data_param { batch_size: 2 }')

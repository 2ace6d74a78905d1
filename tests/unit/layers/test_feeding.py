"""Layers that read ahead, whatever the number of their threads: same batches, bad records, hanging ones, nothing left."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.data import LmdbWriter, array_to_datum, images
from paratrain.data.options import DataOptions, default_worker_count
from paratrain.errors import DataError
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN, Datum
from tests.gradient_check import set_up_layer

WORKERS = (1, 2, 3, 5)
RNG = np.random.default_rng(4)
PHOTOS = [RNG.integers(0, 256, (3, int(h), int(w)), np.uint8) for h, w in RNG.integers(40, 60, (23, 2))]
CROPPED = "transform_param { crop_size: 36 mirror: true scale: 0.5 mean_value: 100 }"


@pytest.fixture(autouse=True)
def _divided(monkeypatch):
    """Let threads share even small batches."""
    monkeypatch.setattr("paratrain.layers.prefetching._DIVIDED_BYTES", 1)


def encoded(pixels, label):
    data = images.encode(pixels, "jpg")
    return Datum(channels=3, height=1, width=1, data=data, label=label, encoded=True).SerializeToString()


def write(path, values):
    with LmdbWriter(path) as database:
        for i, value in enumerate(values):
            database.put(b"%08d" % i, value)
    return f'data_param {{ source: "{path}" backend: LMDB batch_size: 7 %s }}'


@pytest.fixture
def photos(tmp_path):
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    return write(tmp_path / "photos", [encoded(pixels, i) for i, pixels in enumerate(PHOTOS)])


def data_layer(parameter, transform="", fields=""):
    return f'type: "Data" name: "d" top: "data" top: "label" {transform} {parameter % fields}'


def set_up(text, workers=1, on_bad_record="stop", time_limit_s=120.0, **context):
    options = DataOptions(workers, on_bad_record, time_limit_s)
    context = LayerContext(create_backend("numpy"), TRAIN, seed=5, data=options, **context)
    return set_up_layer(text, [], context=context)


def batches(run, count):
    """The next batches, copied, and the layer closed."""
    found = [[top.copy() for top in run.forward()] for _ in range(count)]
    run.layer.close()
    return found


def assert_equal(some, others):
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fields", ["", "shuffle: true", "shuffle_window: 9 prefetch: 1"])
def test_batches_do_not_depend_on_the_number_of_threads(photos, fields):
    layer = data_layer(photos, CROPPED, fields)
    one = batches(set_up(layer), 12)
    for workers in WORKERS[1:]:
        assert_equal(batches(set_up(layer, workers), 12), one)
        run = set_up(layer, workers)
        run.layer.seek(8)
        assert_equal(batches(run, 4), one[8:])


def test_raw_records_read_at_once_are_those_read_one_by_one(tmp_path, monkeypatch):
    values = [array_to_datum(RNG.integers(0, 256, (3, 5, 4), np.uint8), 50 * i) for i in range(17)]
    values[11].float_data.append(1.5)  # of another form, and read by the parser
    parameter = write(tmp_path / "raw", [value.SerializeToString() for value in values])
    for transform in ("", "transform_param { scale: 0.1 mean_value: 3 crop_size: 3 }", CROPPED.replace("36", "3")):
        layer = data_layer(parameter, transform)
        quick = {size: batches(set_up(layer, 2, rank=1, size=size), 9) for size in (2, 3)}
        with monkeypatch.context() as patched:
            patched.setattr("paratrain.data.source.DatumLayout.of", lambda *_: None)
            for size, found in quick.items():
                assert_equal(found, batches(set_up(layer, rank=1, size=size), 9))


# -- bad records

BAD = (0, 4, 5, 12, 22)


@pytest.fixture
def damaged(tmp_path):
    """As ``photos``, five of them damaged in different ways."""
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    values = [encoded(pixels, i) for i, pixels in enumerate(PHOTOS)]
    values[0] = b"no datum"
    values[4] = encoded(PHOTOS[4][:, :20], 4)  # smaller than the crop
    values[5] = Datum(data=images.encode(PHOTOS[5], "jpg")[:-700], label=5, encoded=True).SerializeToString()
    values[12] = array_to_datum(np.zeros((1, 40, 40), np.uint8), 12).SerializeToString()  # other channels
    values[22] = array_to_datum(np.zeros((3, 40, 40), np.uint8), 22).SerializeToString()[:-1]
    return write(tmp_path / "damaged", values)


def taken(record):
    """Which record is read for ``record``: it, or the next good one, round the end."""
    while record in BAD:
        record = (record + 1) % len(PHOTOS)
    return record


@pytest.mark.parametrize("workers", WORKERS)
def test_the_next_good_record_takes_the_place_of_a_bad_one(damaged, workers):
    run = set_up(data_layer(damaged, CROPPED), workers, "skip")
    found = [[top.copy() for top in run.forward()] for _ in range(9)]
    places = np.arange(63) % len(PHOTOS)
    assert np.concatenate([labels for _, labels in found]).tolist() == [taken(record) for record in places]
    assert run.layer.bad_record_count == sum(record in BAD for record in places)
    assert run.layer.last_keys() == [f"{taken(record):08d}" for record in places[-7:]]
    run.layer.seek(2)
    assert_equal([run.forward()], [found[2]])
    run.layer.close()


def test_with_bad_records_too_the_ranks_read_what_one_would(damaged):
    one = batches(
        set_up(data_layer(damaged.replace("batch_size: 7", "batch_size: 14"), CROPPED, "shuffle: true"), 2, "skip"), 6
    )
    ranks = [
        batches(set_up(data_layer(damaged, CROPPED, "shuffle: true"), 1 + rank, "skip", rank=rank, size=2), 6)
        for rank in (0, 1)
    ]
    for whole, *parts in zip(one, *ranks, strict=True):
        for top in (0, 1):
            assert np.array_equal(np.stack([part[top] for part in parts], axis=1).reshape(whole[top].shape), whole[top])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_bad_record_stops_the_run_and_is_named(tmp_path, photos, workers):
    values = [encoded(pixels, i) for i, pixels in enumerate(PHOTOS)]
    values[16] = values[16][:-100]
    values[18] = b"bad too, and found perhaps before"
    run = set_up(data_layer(write(tmp_path / "db", values), CROPPED), workers)
    run.forward(), run.forward()
    for _ in range(2):
        with pytest.raises(DataError, match=r"layer 'd' \(Data\): .*db: record 16 \(key '00000016'\): .*not a Datum"):
            run.forward()
    run.layer.close()


def test_when_all_records_are_bad_that_is_an_error(tmp_path):
    parameter = write(tmp_path / "db", [b"bad"] * 3)
    with pytest.raises(DataError, match=r"layer 'd' .*none of the 3 records can be used; the last: .*record 2"):
        set_up(data_layer(parameter), 2, "skip")


def test_images_one_by_one_keep_their_sizes_and_bad_ones_are_replaced(damaged):
    run = set_up(data_layer(damaged.replace("batch_size: 7", "batch_size: 1")), 3, "skip")
    good = [
        12 if record == 12 else 4 if record == 4 else taken(record) for record in range(len(PHOTOS))
    ]  # these can be read
    shapes = {4: (1, 3, 20, PHOTOS[4].shape[2]), 12: (1, 1, 40, 40)}
    for record in good:
        data, label = run.forward()
        assert label.tolist() == [record]
        assert data.shape == shapes.get(record, (1, *PHOTOS[record].shape))
    assert run.layer.bad_record_count == 3
    run.layer.close()


# -- hanging and closing


def image_list(folder, names):
    (folder / "list.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))
    return (
        'type: "ImageData" name: "d" top: "data" top: "label" '
        f'image_data_param {{ source: "{folder}/list.txt" root_folder: "{folder}/" batch_size: 2 }}'
    )


def release(fifo):
    """Let whoever waits for the other end of a FIFO go on."""
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("hanging", [0, 3])
def test_a_file_that_never_answers_ends_the_run(tmp_path, hanging):
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    names = [f"{i}.png" for i in range(6)]
    for name in names:
        (tmp_path / name).write_bytes(images.encode(PHOTOS[0], "png"))
    fifo = tmp_path / names[hanging]
    fifo.unlink()
    os.mkfifo(fifo)
    begin = time.monotonic()
    message = (
        rf"layer 'd' \(ImageData\): .*list.txt:{hanging + 1} \('{hanging}.png'\): reading it has not ended within 0.5 s"
    )
    if hanging == 0:
        with pytest.raises(DataError, match=message):
            set_up(image_list(tmp_path, names), 2, time_limit_s=0.5)
    else:
        run = set_up(image_list(tmp_path, names), 2, time_limit_s=0.5)
        run.forward()
        with pytest.raises(DataError, match=message):
            run.forward()
        run.layer.close()
    assert time.monotonic() - begin < 8
    writer = os.open(fifo, os.O_RDWR)  # an empty image, for the thread that was left behind
    wait_until(lambda: not paratrain_threads() or os.write(writer, b"no image") < 0)
    os.close(writer)
    wait_until(lambda: not paratrain_threads())


def paratrain_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("paratrain-")]


def wait_until(condition):
    deadline = time.monotonic() + 0.5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def open_files():
    return sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd))


def _is_open(fd):
    return os.path.lexists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("how", ["close", "forget", "error", "error and forget"])
def test_a_closed_layer_leaves_neither_threads_nor_files(tmp_path, how):
    values = [array_to_datum(np.zeros((1, 2, 2), np.uint8), i).SerializeToString() for i in range(40)]
    if "error" in how:
        values[38] = b"bad"  # in a batch that is not read yet when the threads are counted
    parameter = write(tmp_path / "db", values)
    gc.collect()
    before = open_files()
    run = set_up(data_layer(parameter), 4)
    run.forward()
    assert len(paratrain_threads()) == 4
    assert any("db/data.mdb" in name for name in set(open_files()) - set(before))
    if "error" in how:
        with pytest.raises(DataError):
            for _ in range(9):
                run.forward()
    if "forget" in how:
        del run
        gc.collect()
    else:
        run.layer.close()
    wait_until(lambda: not paratrain_threads())
    assert not paratrain_threads()
    assert open_files() == before


def test_memory_stays_level_over_20_epochs(photos):
    run = set_up(data_layer(photos, CROPPED, "shuffle: true"), 2)
    steps = -(-len(PHOTOS) // 7)
    held = []
    tracemalloc.start()
    try:
        for epoch in range(20):
            for _ in range(steps):
                run.forward()
            if epoch in (1, 19):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    run.layer.close()
    assert held[1] - held[0] < 50_000, "a photo has 5,000 to 10,000 bytes, a batch 100,000"


# -- how many threads


@pytest.mark.parametrize(
    ("bound", "cores", "ranks", "expected"),
    [
        (1, 1, 1, 1),
        (2, 2, 1, 1),
        (4, 4, 1, 3),
        (8, 8, 4, 1),
        (16, 16, 2, 7),
        (64, 64, 1, 16),
        (4, 64, 16, 3),
        (2, 2, 5, 1),
    ],
)
def test_one_core_is_left_for_computing(monkeypatch, bound, cores, ranks, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_worker_count(ranks) == expected


def test_large_batches_are_divided_and_small_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("paratrain.layers.prefetching._DIVIDED_BYTES", 1 << 20)
    path = write(tmp_path / "db", [array_to_datum(np.zeros((1, 2, 2), np.uint8)).SerializeToString()])
    run = set_up(data_layer(path), 3)
    assert run.layer._ring.piece_count == 1
    run.layer.close()
    monkeypatch.setattr("paratrain.layers.prefetching._DIVIDED_BYTES", 7 * 4 * 4)
    run = set_up(data_layer(path, fields="prefetch: 1"), 3)
    assert run.layer._ring.piece_count == 3
    run.forward()
    assert len(paratrain_threads()) == 3, "even with a single place in the ring"
    run.layer.close()

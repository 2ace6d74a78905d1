"""Data, ImageData and WindowData on the simulated GPU: the batches of the CPU, bit for bit, whatever they are made of."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from paratrain.backends import create_backend
from paratrain.data import LmdbWriter, array_to_datum
from paratrain.data.hdf5 import open_hdf5
from paratrain.data.options import DataOptions
from paratrain.dtypes import dtype_named
from paratrain.errors import DataError, DeviceError, DeviceFullError
from paratrain.layers import prefetching
from paratrain.layers.base import LayerContext
from paratrain.layers.batch_ring import HostRing
from paratrain.layers.cupy.device_ring import DeviceRing, ImageBytes, ImageValues
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN, NetParameter, array_to_blob, parse_prototxt, write_binary
from tests.gradient_check import LayerRun, set_up_layer
from tests.paths import DATA, GOLDEN

IMAGES = DATA / "images"
SHAPE = (3, 9, 11)
TRANSFORMS = (
    "",
    "scale: 0.00390625",
    "scale: 0.3 mean_value: 9.7",
    "mean_value: 9 mean_value: 100.5 mean_value: 30",
    "crop_size: 6",
    "crop_size: 9 mirror: true mean_value: 1 mean_value: 2 mean_value: 3",
    "mirror: true scale: 1.7 mean_file: 'mean.binaryproto'",
    "crop_size: 5 mirror: true scale: 0.1 mean_file: 'mean.binaryproto'",
)


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An LMDB of 10 images of bytes, one of floats, and a mean image, in the current folder."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(5)
    pixels = random.integers(0, 256, (10, *SHAPE), np.uint8)
    write(tmp_path / "bytes", pixels)
    write(tmp_path / "floats", random.normal(size=(10, *SHAPE)).astype(np.float32))
    mean = random.uniform(0, 255, (1, *SHAPE)).astype(np.float32)
    write_binary("mean.binaryproto", array_to_blob(mean))


def write(path: Path, images: Any) -> None:
    with LmdbWriter(path) as database:
        for i, image in enumerate(images):
            database.put(b"%08d" % i, array_to_datum(image, i).SerializeToString())


def data(transform: str = "", rest: str = "", source: str = "bytes", batch_size: int = 4) -> str:
    return (
        f'type: "Data" name: "d" data_param {{ source: "{source}" backend: LMDB batch_size: {batch_size} {rest} }} '
        f'transform_param {{ {transform} }} top: "data" top: "label"'
    )


def set_up(
    text: Any, phase: Any = TRAIN, backend: str = "cupy", precision: str = "float32", **context: Any
) -> LayerRun:
    made = create_backend(backend, precision)
    return set_up_layer(text, [], context=LayerContext(made, phase, **{"dtype": np.float32, "seed": 3, **context}))


def ring(run: LayerRun) -> Any:
    return run.layer._ring  # type: ignore[attr-defined]


def batches(text: Any, count: int = 5, phase: Any = TRAIN, **context: Any) -> list[npt.NDArray[Any]]:
    run = set_up(text, phase, **context)
    found = [top for _ in range(count) for top in run.forward()]
    run.layer.close()
    return found


def assert_same(text: Any, count: int = 5, phase: Any = TRAIN, **context: Any) -> None:
    wanted = batches(text, count, phase, backend="numpy", **context)
    for found, expected in zip(batches(text, count, phase, **context), wanted, strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_tops_are_the_cpus_bit_for_bit(transform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same(data(transform), phase=TEST)
    monkeypatch.setattr(prefetching, "_DIVIDED_BYTES", 1)  # as if images were large
    assert_same(data(transform, "prefetch: 2"), data=DataOptions(worker_count=3))


@pytest.mark.parametrize("worker_count", [1, 3])
@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_many_batches(prefetch: int, worker_count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetching, "_DIVIDED_BYTES", 1)
    order = "shuffle: true" if prefetch > 1 else "shuffle_window: 5"
    text = data("crop_size: 4 mirror: true", f"prefetch: {prefetch} {order}")
    assert_same(text, 30, data=DataOptions(worker_count=worker_count))


def test_one_top_ranks_and_dealt_batches() -> None:
    assert_same(data().replace('top: "label"', ""))
    for rank in range(3):
        assert_same(data("mirror: true"), rank=rank, size=3)
        assert_same(data("mirror: true"), phase=TEST, deal=(rank, 3))


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("transform", TRANSFORMS[-2:])
def test_tops_are_written_as_the_first_convolution_wants_them(precision: str, transform: str) -> None:
    run, plain = set_up(data(transform), precision=precision), set_up(data(transform), backend="numpy")
    storage = dtype_named("float32" if precision == "tf32" else precision)
    for _ in range(3):
        run.layer.forward([], run.tops)
        form = run.tops[0].data_memory.arrangement.form
        assert form.dtype == storage
        assert form.channels_last
        images, labels = plain.forward()
        np.testing.assert_array_equal(run.tops[0].data, images.astype(storage).astype(np.float32))
        np.testing.assert_array_equal(run.tops[1].data, labels)
    for made in (run, plain):
        made.layer.close()


@pytest.mark.parametrize(
    "name", ["raw", "gray", "wrap_around", "scale_mean_value", "mean_file_crop", "png", "jpg", "image_data"]
)
def test_agrees_with_caffe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("png", "jpg", "image_data"):
        pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    monkeypatch.chdir(IMAGES)
    (parameter,) = text_format.Parse((GOLDEN / "data" / f"{name}.prototxt").read_text(), NetParameter()).layer
    run = set_up(parameter, TEST)
    assert isinstance(ring(run), DeviceRing)
    tolerance = {"jpg": 2.01, "image_data": 2.01, "mean_file_crop": 1e-4}.get(name, 0)
    with np.load(GOLDEN / "data" / f"{name}.npz") as expected:
        for batch in range(4):
            for top, values in zip(parameter.top, run.forward(), strict=True):
                np.testing.assert_allclose(values, expected[f"{batch}/{top}"], rtol=0, atol=tolerance)
    run.layer.close()


def test_what_is_sent() -> None:
    for text, context, kind in (
        (data(), {}, ImageBytes),
        (data(source="floats"), {}, ImageValues),
        (data(batch_size=1), {}, None),  # images may differ in size
        (data(), {"keeps_arrays": True}, None),
        (data(), {"dtype": np.float64}, None),
    ):
        run = set_up(text, **context)
        if kind is None:
            assert isinstance(ring(run), HostRing)
        else:
            assert isinstance(ring(run), DeviceRing)
            assert isinstance(ring(run)._sent, kind)
        run.layer.close()
        assert_same(text, phase=TEST, **context)


def test_windows_are_sent_as_values() -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    Path("windows.txt").write_text(f"# 0\n{IMAGES}/images/china/02.png\n3\n0\n0\n2\n1 0.9 4 6 27 29\n0 0.1 8 8 12 30\n")
    text = (
        'type: "WindowData" name: "w" top: "data" top: "label" transform_param { crop_size: 10 mirror: true mean_value: 7 } '
        'window_data_param { source: "windows.txt" batch_size: 8 }'
    )
    assert_same(text)


def test_image_files_are_sent_as_bytes() -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    text = (
        'type: "ImageData" name: "d" top: "data" top: "label" transform_param { mirror: true crop_size: 5 scale: 0.5 } '
        f'image_data_param {{ source: "{IMAGES}/list.txt" root_folder: "{IMAGES}/images/" new_height: 8 new_width: 6 '
        "batch_size: 4 shuffle: true }"
    )
    assert_same(text, 8)


def test_bad_records_are_replaced_or_told() -> None:
    with LmdbWriter(Path("spoilt")) as database:
        for i in range(10):
            good = array_to_datum(np.full(SHAPE, i, np.uint8), i).SerializeToString()
            database.put(b"%08d" % i, b"no datum" if i == 5 else good)
    options = DataOptions(on_bad_record="skip")
    assert_same(data(source="spoilt"), data=options)
    run = set_up(data(source="spoilt"), data=options)
    for _ in range(5):
        run.forward()
    assert run.layer.bad_record_count == 2  # type: ignore[attr-defined]
    run.layer.close()
    run = set_up(data(source="spoilt"))
    run.forward()
    with pytest.raises(DataError, match=r"layer 'd' \(Data\): .*00000005"):
        run.forward()
    run.layer.close()


def test_floats_among_bytes_are_named() -> None:
    images: list[Any] = [np.zeros(SHAPE, np.uint8)] * 5
    write(Path("mixed"), [*images, np.zeros(SHAPE, np.float32), *images])
    run = set_up(data(source="mixed"))
    run.forward()
    with pytest.raises(DataError, match=r"layer 'd' \(Data\): .*00000005.*: an image of floats among images of bytes"):
        run.forward()
    run.layer.close()


def test_seeking_closing_and_closing_unused() -> None:
    text = data("crop_size: 4 mirror: true", "shuffle: true")
    straight = batches(text, 12)
    run = set_up(text)
    run.forward()
    run.forward()
    for batch in (7, 3, 3, 0):
        run.layer.seek(batch)  # type: ignore[attr-defined]
        for step in range(3):
            images, labels = run.forward()
            np.testing.assert_array_equal(images, straight[2 * (batch + step)])
            np.testing.assert_array_equal(labels, straight[2 * (batch + step) + 1])
    run.layer.close()
    np.testing.assert_array_equal(run.tops[0].data, straight[4])  # the last batch stays
    set_up(text).layer.close()


# -- failures


def test_a_failing_copy_is_told_by_the_layer(monkeypatch: pytest.MonkeyPatch, simulated_gpu: Any) -> None:
    error = simulated_gpu.cuda.runtime.CUDARuntimeError(700)

    def fail(self: Any, host: Any, stream: Any = None) -> None:
        raise error

    net = open_net(data())
    net.forward_from_to()
    net.layers[0].seek(0)  # type: ignore[attr-defined]
    monkeypatch.setattr(simulated_gpu.ndarray, "set", fail)
    with pytest.raises(DeviceError, match=r"layer 'd' \(Data\), forward: GPU 0 failed: .*CUDA reports late"):
        net.forward_from_to()
    monkeypatch.undo()
    net.close()


def test_memory_that_cannot_be_pinned_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, simulated_gpu: Any
) -> None:
    def refuse(shape: Any, dtype: Any) -> Any:
        raise simulated_gpu.cuda.runtime.CUDARuntimeError(2)

    monkeypatch.setattr(importlib.import_module("cupyx"), "empty_pinned", refuse)
    with caplog.at_level(logging.WARNING):
        assert_same(data("mirror: true"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "memory that is not pinned" in line
    assert "ulimit -l" in line


def test_a_full_gpu_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = create_backend("cupy")
    free = backend.xp.cuda.runtime.memGetInfo()[0]
    monkeypatch.setattr(backend.device, "zeros", refusing(backend.device, limit=free // 4))
    huge = data("", "prefetch: 3", batch_size=free // (2 * int(np.prod(SHAPE))))
    monkeypatch.setattr("paratrain.layers.cupy.device_ring._host_bytes", lambda count: np.empty(count, np.uint8))
    monkeypatch.setattr(prefetching, "check_bytes", lambda *_: None)
    context = LayerContext(backend, TRAIN, np.float32)
    with pytest.raises(DeviceFullError, match=r"layer 'd' \(Data\): GPU 0 is full: .*a smaller prefetch or batch_size"):
        set_up_layer(huge, [], context=context)


def test_threads_of_a_rank_use_its_gpu_alone(monkeypatch: pytest.MonkeyPatch, simulated_gpu: Any) -> None:
    import simulated

    contexts = simulated.devices.contexts
    monkeypatch.setenv("SIMULATED_GPUS", "2")
    with simulated_gpu.cuda.Device(1):
        net = open_net(data())
        contexts.clear()
        net.forward_from_to()  # the first batch is read in new threads, whose GPU is number 0
        net.close()
        assert contexts == {1}


def refusing(device: Any, limit: int) -> Any:
    """``device.zeros`` of a GPU that has no more than ``limit`` bytes."""

    def zeros(count: int, dtype: Any) -> Any:
        size = count * np.dtype(dtype).itemsize
        if size > limit:
            raise device.out_of_memory(size)
        return type(device).zeros(device, count, dtype)

    return zeros


# -- in a net that is recorded


def open_net(text: str, **context: Any) -> Net:
    layers = f"""layer {{ {text} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
                 inner_product_param {{ num_output: 10 weight_filler {{ type: "gaussian" std: 0.001 }} }} }}
        layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}"""
    made = LayerContext(create_backend(context.pop("backend", "cupy")), TRAIN, seed=1, **context)
    return Net(parse_prototxt(layers, NetParameter), made)


def losses(net: Net, count: int) -> Iterator[float]:
    recorded = net.recorded_pass
    for _ in range(count):
        net.clear_param_diffs()
        loss = None if recorded is None else recorded.run()
        if loss is None:
            loss = net.forward_from_to()
            net.backward_from_to()
            if recorded is not None:
                recorded.note_pass()
        yield loss


HDF5 = 'name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 3 }'


@pytest.mark.parametrize(
    ("text", "first_recorded"),
    [
        (data("mirror: true"), 2),
        (data("mirror: true", source="floats"), 2),
        (HDF5, 2),
        (data("mirror: true", "prefetch: 3", batch_size=1), 4),  # a recording for each place of the batch
    ],
)
def test_recorded_passes_get_new_batches(text: str, first_recorded: int) -> None:
    if text == HDF5:
        pytest.importorskip("h5py", reason="h5py is not installed (the extra 'hdf5')")
        with open_hdf5(Path("rows.h5"), "w") as file:
            file["data"], file["label"] = np.random.default_rng(1).normal(size=(7, 5)), np.arange(7)
        Path("list.txt").write_text("rows.h5")
    counts = importlib.import_module("simulated").counts
    net, plain = open_net(text, plans_memory=True), open_net(text, backend="numpy")
    found = []
    steps = losses(net, 12)
    for step, expected in enumerate(losses(plain, 12)):
        before = counts["graph_launch"]
        found.append(next(steps))
        assert found[-1] == pytest.approx(expected, rel=1e-5)
        assert (counts["graph_launch"] > before) == (step >= first_recorded)
    assert len(set(found)) > 1
    for made in (net, plain):
        made.close()

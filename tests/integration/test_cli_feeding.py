"""How records are read ahead, from the command line: threads, bad records and records that never come."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from paratrain.data import LmdbWriter, array_to_datum, images
from paratrain.proto import NetParameter, blob_to_array, read_binary
from tests.integration.cli import error, figures, messages, paratrain, write_solver

NET = """
layer {{ name: "d" top: "data" top: "label" {layer} transform_param {{ crop_size: 6 mirror: true scale: 0.01 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 9 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
DATABASE = 'type: "Data" data_param {{ source: "db" backend: LMDB batch_size: {} shuffle: true }}'
BAD = (3, 4, 9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the database ``db`` of 14 records, three of them bad."""
    random = np.random.default_rng(3)
    with LmdbWriter(tmp_path / "db") as database:
        for i in range(14):
            value = array_to_datum(random.integers(0, 256, (3, 8, 8), np.uint8), i % 9).SerializeToString()
            database.put(b"%08d" % i, value[:-20] if i in BAD else value)
    return tmp_path


def weights(folder: Path, name: str) -> bytes:
    model = read_binary(folder / f"{name}_iter_7.caffemodel", NetParameter)
    return b"".join(blob_to_array(blob).tobytes() for layer in model.layer for blob in layer.blobs)


def test_a_bad_record_stops_the_run_unless_it_is_skipped_and_counted(folder: Path, mpirun: str) -> None:
    for name, batch in (("one", 4), ("three", 4), ("ranks", 2)):
        settings = "max_iter: 7\ndisplay: 1\nsnapshot_format: BINARYPROTO\n"
        write_solver(folder, settings, net=NET.format(layer=DATABASE.format(batch)), name=name)
    message = error(paratrain(folder, "train", "one.solver.prototxt"))
    assert "layer 'd' (Data): db: record " in message
    assert "a Datum" in message

    skip = ("--on-bad-record", "skip", "--metrics", "run.jsonl")
    for name, workers, launcher in (("one", "1", ()), ("three", "3", ()), ("ranks", "2", (mpirun, "-n", "2"))):
        done = paratrain(
            folder, "train", f"{name}.solver.prototxt", *skip, "--data-workers", workers, launcher=launcher
        )
        assert done.returncode == 0, done.stderr
        # 7 x 4 samples are two epochs: each bad record's turn came twice.
        assert (
            messages(done).count("Bad records: 6 times the next good record took the place of one that cannot be used")
            == 1
        ), done.stderr
        named = [line for line in done.stderr.splitlines() if "the next good record takes its place" in line]
        for record in BAD:
            assert any(f"db: record {record} (key '{record:08d}'): " in line for line in named)
        counts = [line["bad_records"] for line in figures(folder / "run.jsonl")]
        assert len(counts) == 7
        assert counts == sorted(counts)
        assert counts[-1] == 6
    assert weights(folder, "one") == weights(folder, "three")
    np.testing.assert_allclose(
        np.frombuffer(weights(folder, "ranks"), np.float32),
        np.frombuffer(weights(folder, "one"), np.float32),
        atol=1e-5,
    )


def test_a_test_counts_them_too(folder: Path, mpirun: str) -> None:
    write_solver(folder, net=NET.format(layer=DATABASE.format(2)))
    done = paratrain(folder, "train", "small.solver.prototxt", "--on-bad-record", "skip")
    assert done.returncode == 0, done.stderr
    arguments = ("test", "-model", "small.net.prototxt", "-weights", "small_iter_4.caffemodel", "-iterations", "7")
    assert "db: record " in paratrain(folder, *arguments).stderr
    done = paratrain(folder, *arguments, "--on-bad-record", "skip", launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("Bad records: 3 times ") for line in messages(done)) == 1


@pytest.mark.parametrize("hanging", [0, 5])
def test_a_file_that_never_answers_ends_all_ranks(tmp_path: Path, mpirun: str, hanging: int) -> None:
    """A FIFO that nobody writes to; on two ranks with batches of 2, image 5 is rank 1's."""
    pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'images')")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(8)))
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(images.encode(np.zeros((3, 8, 8), np.uint8), "png"))
    (tmp_path / f"{hanging}.png").unlink()
    os.mkfifo(tmp_path / f"{hanging}.png")
    layer = 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 2 }'
    write_solver(tmp_path, net=NET.format(layer=layer))
    begin = time.monotonic()
    done = paratrain(tmp_path, "train", "small.solver.prototxt", "--data-timeout", "0.5", launcher=(mpirun, "-n", "2"))
    # Starting takes most of this; a rank that was left waiting would stay for ever.
    assert time.monotonic() - begin < 30
    message = error(done)
    assert f"list.txt:{hanging + 1} ('{hanging}.png'): reading it has not ended within 0.5 s" in message
    assert message.startswith("rank 1 of 2") == (hanging == 5), "the first image is looked at by every rank"

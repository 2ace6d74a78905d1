from __future__ import annotations

import errno
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paratrain.errors import MissingDependencyError, ParatrainError
from paratrain.metrics import TensorBoardWriter


def crc32c(data: bytes) -> int:
    """The checksum of TensorFlow's records, by its definition: bit by bit, the polynomial 0x1EDC6F41 reversed."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(folder: Path) -> Iterator[Any]:
    """Every event in the files of a folder, in the order in which they were written; checksums are looked at."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            length, length_crc = struct.unpack("<QI", data[:12])
            record, (record_crc,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
            assert (crc32c(data[:8]), crc32c(record)) == (length_crc, record_crc)
            yield Event.FromString(record)
            data = data[16 + length :]


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if not value.HasField("tensor")
    ]


def test_figures_are_read_back_while_the_run_goes_on(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path / "deep" / "events")
    writer.write(run={"net": "LeNet", "iteration": 0}, time=1e9)
    writer.write(iteration=20, loss=2.5, lr=0.25, update_s=0.5, train_outputs={"loss1": 1.5}, ranks={}, time=1e9)
    writer.write(iteration=40, test_net=0, outputs={"accuracy": 0.5, "each": [1.0, math.nan]}, time=1e9 + 1)
    writer.write(iteration=40, test_net=2, outputs={"loss": 0.75}, time=1e9 + 1)
    writer.write(warning="no curve", time=1e9 + 1)
    found = scalars(tmp_path / "deep" / "events")
    assert found[:5] == [
        ("train/loss", 20, 2.5),
        ("train/lr", 20, 0.25),
        ("time/update_s", 20, 0.5),
        ("train/output/loss1", 20, 1.5),
        ("test/accuracy", 40, 0.5),
    ]
    assert [entry[0] for entry in found[5:]] == ["test/each/0", "test/each/1", "test_2/loss"]
    assert math.isnan(found[6][2])
    assert {event.wall_time for event in events(tmp_path / "deep" / "events") if event.step == 20} == {1e9}
    texts = [value for event in events(tmp_path / "deep" / "events") for value in event.summary.value]
    assert any(value.HasField("tensor") and b"LeNet" in value.tensor.string_val[0] for value in texts)
    writer.close()


def test_a_resumed_run_takes_the_place_of_what_it_repeats(tmp_path: Path) -> None:
    for first_step in (0, 30):
        writer = TensorBoardWriter(tmp_path, first_step=first_step)
        for iteration in range(first_step, first_step + 60, 20):
            writer.write(iteration=iteration, loss=float(iteration), time=1e9)
        writer.close()
    starts = [event for event in events(tmp_path) if event.HasField("session_log")]
    assert [event.step for event in starts] == [30]  # TensorBoard drops what came before from there on
    assert [step for tag, step, _ in scalars(tmp_path) if tag == "train/loss"] == [0, 20, 40, 30, 50, 70]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ParatrainError, match="cannot write to --tensorboard"):
        TensorBoardWriter(tmp_path / "file" / "events")


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'paratrain\[tensorboard\]'"):
        TensorBoardWriter(tmp_path)


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TensorBoardWriter(tmp_path)

    def flush() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer._writer, "flush", flush)
        with pytest.raises(ParatrainError, match="cannot write to --tensorboard .*No space left"):
            writer.write(iteration=0, loss=1.0, time=1e9)
    writer.close()

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from paratrain.errors import DataError
from paratrain.tools.runs import open_run
from tests.paths import GOLDEN

LINE = json.dumps({"iteration": 7, "loss": 1.0, "lr": 0.1, "images_per_s": 1.0}) + "\n"


def test_a_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "net.prototxt").write_text("name: 'n'")
    (tmp_path / "weights.caffemodel").write_bytes(b"\0\1\2")
    shutil.copy(GOLDEN / "log/caffe_train.log", tmp_path / "logs/paratrain.h.u.log.INFO.1.2")
    (tmp_path / "logs/paratrain.INFO").symlink_to("paratrain.h.u.log.INFO.1.2")
    (tmp_path / "logs/core").write_bytes(b"\0" * 100)
    run = open_run(tmp_path)
    assert (run.name, run.last_iteration) == (tmp_path.name, 100)
    for name, text, age in (("old", LINE, 1e6), ("new", LINE.replace("7", "8"), 2e6), ("empty", "", 3e6)):
        (tmp_path / f"{name}.jsonl").write_text(text)
        os.utime(tmp_path / f"{name}.jsonl", (age, age))
    assert open_run(tmp_path).last_iteration == 8
    with (tmp_path / "train.log").open("w") as log:
        log.write(
            "W1121 21:06:22.735240 25004 a.py:1] odd\nI1121 21:06:22.735240 25004 a.py:1] Iteration 1, loss = 2\n"
        )
    run = open_run(tmp_path)
    assert (run.last_iteration, run.warnings) == (8, ["odd"])
    assert [path.name for path in run.paths] == ["new.jsonl", "train.log"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty; the run has written nothing yet"),
        (b"\n\n", "is empty"),
        (b"name: 'LeNet'\n", "is neither a log in Caffe's form nor metrics"),
        (b"{\0binary", "is neither a log"),
        (b'{"iteration": 3, "lo', "holds no metrics yet; is `display` in the solver larger than 0"),
        (b'{"warning": "alone"}\n', "holds no metrics yet"),
        (b"iteration,time,loss\n", "holds no metrics yet"),
    ],
)
def test_files_without_a_run(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_run(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run is in this folder"):
        open_run(tmp_path)
    (tmp_path / "m.jsonl").write_text('{"warning": "alone"}\n')
    with pytest.raises(DataError, match=r"m\.jsonl: holds no metrics yet"):
        open_run(tmp_path)

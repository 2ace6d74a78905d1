from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.errors import SnapshotError
from paratrain.snapshot import BestScore, DataPosition, TrainingState, read_training_state
from paratrain.snapshot.training_state import FileSum

STATE = TrainingState(
    iteration=30,
    seed=2**31 - 1,
    ranks=3,
    iter_size=2,
    data=[DataPosition("data", 61, 8, 2)],
    tests=[14],
    policy={"minimum_loss": 0.1 + 0.2, "losses": [1e-45, float("inf")]},
    best=BestScore("max:accuracy", 2 / 3, 20),
    files={"a_iter_30.caffemodel": FileSum(3, "00")},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    STATE.write(tmp_path / "a.trainstate")
    assert read_training_state(tmp_path / "a.trainstate") == STATE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "else"}, "does not name the format 'paratrain.trainstate'"),
        ({"version": 2}, "has version 2; this paratrain reads version 1"),
        ({"ranks": 0}, "numbers that cannot be"),
        ({"iteration": -1}, "numbers that cannot be"),
        ({"seed": "x"}, "numbers that cannot be"),
        ({"tests": [None]}, "numbers that cannot be"),
        ({"data": [{"layer": "data"}]}, "is damaged"),
        ({"data": 5}, "is damaged"),
        ({"files": {"../a": {"size_bytes": 3, "sha256": "00"}}}, "its files lie beside it"),
        ({"more": 1}, "is damaged"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.trainstate"
    STATE.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SnapshotError, match=f"a.trainstate: .*{message}"):
        read_training_state(path)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no such file"):
        read_training_state(tmp_path / "none.trainstate")
    (tmp_path / "a.trainstate").write_bytes(b"\xff\x00")
    with pytest.raises(SnapshotError, match="is damaged, or not a trainstate"):
        read_training_state(tmp_path / "a.trainstate")


@settings(deadline=None)
@given(st.data())
def test_every_cut_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cut")
    STATE.write(folder / "a.trainstate")
    whole = (folder / "a.trainstate").read_bytes()
    length = data.draw(st.integers(0, len(whole.rstrip()) - 1))
    (folder / "a.trainstate").write_bytes(whole[:length])
    with pytest.raises(SnapshotError, match="a.trainstate: is"):
        read_training_state(folder / "a.trainstate")

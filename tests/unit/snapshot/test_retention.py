from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import pytest

from paratrain.errors import SnapshotError
from paratrain.snapshot import Metric, SnapshotKeeper, TrainingState, find_newest
from paratrain.snapshot.names import SnapshotNames, leftovers, list_snapshots
from paratrain.snapshot.retention import remove_old
from paratrain.snapshot.training_state import sum_file


def write_snapshot(folder: Path, iteration: int, *, hdf5: bool = False) -> SnapshotNames:
    names = SnapshotNames(f"{folder}/net", iteration, hdf5)
    sums = {}
    for name in (names.model, names.state):
        Path(name).write_text(f"{name} of {iteration}")
        sums[Path(name).name] = sum_file(name)
    TrainingState(iteration, 1, 1, 1, [], files=sums).write(names.training)
    return names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("accuracy", "max:accuracy"),
        ("loss", "min:loss"),
        ("top5_error", None),
        ("max:thing", "max:thing"),
        ("min:accuracy", "min:accuracy"),
        ("error_rate", "min:error_rate"),
        ("mean_iou", "max:mean_iou"),
        ("thing", None),
        ("up:accuracy", None),
        ("max:", None),
        ("", None),
    ],
)
def test_which_scores_are_better(text: str, shown: str | None) -> None:
    if shown is None:
        with pytest.raises(SnapshotError, match="say whether high or low scores are better"):
            Metric.parse(text)
    else:
        assert str(Metric.parse(text)) == shown


def test_the_first_test_net_that_has_the_score_counts() -> None:
    keeper = SnapshotKeeper("none/net")
    keeper.metric = Metric.parse("accuracy")
    assert not keeper.score(1, [{"loss": 1.0}])
    assert keeper.score(2, [{"loss": 1.0}, {"accuracy": [0.2, 0.4]}, {"accuracy": 0.9}])
    assert keeper.best is not None
    assert (keeper.best.score, keeper.best.iteration) == (pytest.approx(0.3), 2)
    for worse in (0.3, 0.1, math.nan):
        assert not keeper.score(3, [{"accuracy": worse}])
    assert keeper.score(4, [{"accuracy": 0.5}])


def test_the_newest_good_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = f"{tmp_path}/net"
    assert find_newest(prefix) is None
    for iteration in (9, 10, 100):
        write_snapshot(tmp_path, iteration, hdf5=iteration == 9)
    assert find_newest(prefix) == tmp_path / "net_iter_100.solverstate"
    (tmp_path / "net_iter_100.caffemodel").write_text(f"{prefix}_iter_100.caffemodel of 101")  # as long, other bytes
    os.truncate(tmp_path / "net_iter_10.solverstate", 5)
    (tmp_path / "net_iter_200.solverstate").touch()
    (tmp_path / "net_iter_300.trainstate").write_text('{"format": "paratrain.tr')
    (tmp_path / "network_iter_400.trainstate").touch()
    with caplog.at_level(logging.WARNING):
        assert find_newest(prefix) == tmp_path / "net_iter_9.solverstate.h5"
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 4
    for warning, part in zip(
        warnings,
        (
            "net_iter_300.trainstate: is damaged, or not a trainstate",
            "net_iter_200.solverstate: no .trainstate is beside it",
            "net_iter_100.caffemodel: is not what was written at iteration 100",
            "net_iter_10.solverstate: holds 5 bytes",
        ),
        strict=True,
    ):
        assert part in warning
    (tmp_path / "net_iter_9.caffemodel.h5").unlink()
    assert find_newest(prefix) is None


def test_old_snapshots_go_and_the_best_stays(tmp_path: Path) -> None:
    for iteration in (2, 4, 6, 8, 20):
        write_snapshot(tmp_path, iteration)
    (tmp_path / "net_iter_3.caffemodel").touch()
    (tmp_path / "other_iter_2.caffemodel").touch()
    remove_old(f"{tmp_path}/net", newest=8, keep=2, best=2)
    assert list(list_snapshots(f"{tmp_path}/net")) == [20, 8, 6, 2]
    assert len(list_snapshots(f"{tmp_path}/net")[2]) == 3
    assert (tmp_path / "other_iter_2.caffemodel").exists()


def test_a_snapshot_that_was_cut_short_takes_no_place_of_a_good_one(tmp_path: Path) -> None:
    for iteration in (2, 4, 8):
        write_snapshot(tmp_path, iteration)
    for iteration in (1, 5, 6, 7):
        (tmp_path / f"net_iter_{iteration}.caffemodel").touch()
    remove_old(f"{tmp_path}/net", newest=8, keep=4, best=None)
    assert list(list_snapshots(f"{tmp_path}/net")) == [8, 7, 6, 5, 4, 2, 1]
    remove_old(f"{tmp_path}/net", newest=8, keep=2, best=None)
    assert list(list_snapshots(f"{tmp_path}/net")) == [8, 7, 6, 5, 4]


def test_what_a_killed_run_leaves_behind(tmp_path: Path) -> None:
    gone = tmp_path / ".net_iter_5.caffemodel.4194305.01234567.tmp"  # no process has a number as large
    for name in (gone.name, f".net_iter_5.solverstate.{os.getpid()}.01234567.tmp", ".net_iter_x.4194305.01234567.tmp"):
        (tmp_path / name).touch()
    assert list(leftovers(f"{tmp_path}/net")) == [gone]
    assert list(leftovers(f"{tmp_path}/none/net")) == []

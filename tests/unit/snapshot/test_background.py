"""Work beside the training: its order, and what becomes of its errors."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from paratrain.errors import SnapshotError
from paratrain.snapshot.background import Background

SCRIPT = """
import logging, sys
from paratrain.errors import SnapshotError
from paratrain.snapshot.background import Background

def fail():
    raise SnapshotError("the disk is full")

background = Background()
background.start(fail)
{rest}
print("done")
"""


def fail() -> None:
    raise SnapshotError("the disk is full")


def test_following_work_does_not_make_its_caller_wait() -> None:
    done: list[str] = []
    may_go_on = threading.Event()
    background = Background()

    def slow() -> None:
        assert may_go_on.wait(60)
        done.append("first")

    background.start(slow)
    background.follow(lambda: done.append("second"))
    background.follow(lambda: done.append("third"))
    assert done == []
    background.check()
    may_go_on.set()
    background.wait()
    assert done == ["first", "second", "third"]


def test_an_error_is_logged_at_once_and_raised_once(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    background = Background()
    with caplog.at_level(logging.ERROR):
        background.start(fail)
        background.follow(lambda: done.append("after"))
        background.finish()
    assert [record.getMessage() for record in caplog.records] == ["the disk is full"]
    with pytest.raises(SnapshotError, match="the disk is full"):
        background.check()
    background.check()
    background.wait()
    assert done == []


@pytest.mark.parametrize("rest", ["", "background.finish()"])
def test_an_error_that_nothing_has_raised_gives_the_process_exit_code_1(rest: str, tmp_path: Path) -> None:
    done = run(SCRIPT.format(rest=rest), tmp_path)
    assert done.returncode == 1
    assert done.stdout == "done\n"
    assert "paratrain: a snapshot has failed: the disk is full" in done.stderr


def test_an_error_that_was_met_does_not(tmp_path: Path) -> None:
    done = run(SCRIPT.format(rest="try:\n    background.wait()\nexcept SnapshotError:\n    pass"), tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of its own; warnings and errors that nobody asked for show on stderr, as Python has it."""
    (folder / "script.py").write_text(script)
    path = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r}); exec(open('script.py').read())"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

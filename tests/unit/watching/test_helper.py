"""Helpers and ranks as real processes, without MPI: how a death, a cut link and an orderly end are seen, and what follows."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paratrain.watching.board import SIZE_BYTES, create_memory
from paratrain.watching.local import LocalRank
from paratrain.watching.settings import EXIT_WATCH, WatchSettings
from paratrain.watching.start import start_helper
from paratrain.watching.wire import Wire
from tests.integration.cli import ENVIRONMENT

FAST = WatchSettings(warn_s=0.3, abort_s=0, lost_s=1.0, beat_s=0.1, grace_s=0.5)
TOKEN = "5eed"
_END_S = 10.0
_RANK = """
import os, sys, time
from paratrain.activity import Activity
from paratrain.watching.watch import Watch
activity = Activity()
watch = Watch({rank}, activity, {helper!r}, {hub!r}, {token!r})
activity.iteration = 3
activity.enter("backward", "conv{rank}")
print("ready", flush=True)
sys.stdin.readline()
{code}
time.sleep(60)
"""


class Job:
    """Ranks and helpers of one test. ``nodes`` are the numbers of ranks on each host."""

    def __init__(self, nodes: list[int], settings: WatchSettings = FAST) -> None:
        self.ranks: list[subprocess.Popen[str]] = []
        self.size = sum(nodes)
        self.helpers = [
            start_helper(
                node=node,
                node_count=len(nodes),
                local_count=count,
                rank_count=self.size,
                token=TOKEN,
                settings=settings,
            )
            for node, count in enumerate(nodes)
        ]
        self._nodes = [node for node, count in enumerate(nodes) for _ in range(count)]

    def start(self, *codes: str, hub: dict[str, Any] | None = None) -> None:
        """Start the ranks, and let them run these lines when all are there."""
        for rank, code in enumerate(codes):
            program = _RANK.format(rank=rank, helper=self.helpers[self._nodes[rank]], hub=hub, token=TOKEN, code=code)
            self.ranks.append(
                subprocess.Popen(
                    [sys.executable, "-c", program],
                    env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
        for process in self.ranks:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(3 * FAST.beat_s)  # helpers have told each other
        for process in self.ranks:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def codes(self) -> list[int]:
        """How the ranks have ended; the helpers end after them."""
        codes = [process.wait(_END_S) for process in self.ranks]
        deadline = time.monotonic() + _END_S
        while any(map(_is_up, self.helpers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(_is_up, self.helpers))
        return codes

    def close(self) -> None:
        for process in self.ranks:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _is_up(helper: dict[str, Any]) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(f"\0{helper['name']}") == 0


@contextlib.contextmanager
def job(nodes: list[int], settings: WatchSettings = FAST) -> Iterator[Job]:
    made = Job(nodes, settings)
    try:
        yield made
    finally:
        made.close()


def test_an_orderly_end_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with job([2]) as run:
        run.start("watch.close(); sys.exit(0)", "sys.exit(0)")
        assert run.codes() == [0, 0]
    assert capfd.readouterr().err == ""


def test_a_killed_rank_ends_the_others_with_its_place(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("net_iter_20.trainstate", "net_iter_100.trainstate", "net_iter_300.solverstate"):
        (tmp_path / name).write_text("state")
    prefix = str(tmp_path / "net")
    settings = WatchSettings(lost_s=1.0, beat_s=0.1, grace_s=0.5, snapshot_prefix=prefix)
    with job([3], settings) as run:
        begin = time.monotonic()
        run.start("", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 19)")  # a stopped one cannot end itself
        assert run.codes() == [EXIT_WATCH, -signal.SIGKILL, -signal.SIGKILL]
        assert time.monotonic() - begin < _END_S
        process = run.ranks[1].pid
    text = capfd.readouterr().err
    place = f"rank 1 of 3 on {socket.gethostname()}, at iteration 3, backward of 'conv1'"
    assert text == (
        f"paratrain: {place}: killed by SIGKILL (process {process})\n"
        f"  The newest snapshot is {prefix}_iter_100; --resume auto goes on from it.\n"
    )


def test_a_crash_on_another_host_comes_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with job([1, 1]) as run:
        run.start("", "def broken():\n    os.kill(os.getpid(), 11)\nbroken()", hub=run.helpers[0])
        assert run.codes() == [EXIT_WATCH, -signal.SIGSEGV]
    text = capfd.readouterr().err
    assert text.count("paratrain: ") == 1
    assert "rank 1 of 2" in text
    assert "killed by SIGSEGV" in text
    assert 'File "<string>", line 12 in broken' in text
    assert "_listen" not in text


def test_an_error_that_the_rank_reports_is_not_reported_again(capfd: pytest.CaptureFixture[str]) -> None:
    with job([1]) as run:
        run.start("watch.explain(); os._exit(1)")
        assert run.codes() == [1]
    assert capfd.readouterr().err == ""


def test_a_child_that_was_forked_keeps_nobody_alive(capfd: pytest.CaptureFixture[str]) -> None:
    with job([2]) as run:
        run.start("", "child = os.fork()\nif child == 0:\n    time.sleep(4)\n    os._exit(0)\nos._exit(3)")
        begin = time.monotonic()
        assert run.codes() == [EXIT_WATCH, 3]
        assert time.monotonic() - begin < 3
    assert "has ended with exit code 3, before its work was done" in capfd.readouterr().err


def test_a_stall_is_told_and_ends_with_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """The second rank holds on to the interpreter in an endless loop."""
    settings = WatchSettings(warn_s=0.2, abort_s=0.6, lost_s=1.0, beat_s=0.1, grace_s=0.5)
    wait = "begin = time.monotonic()\nwhile True:\n    watch.wait(1, time.monotonic() - begin); time.sleep(0.05)"
    with job([2], settings) as run:
        run.start(wait, "def endless():\n    while True: pass\nendless()")
        assert run.codes() == [EXIT_WATCH] * 2
    text = capfd.readouterr().err
    said = f"rank 0 of 2 has waited 0 s for rank 1 on {socket.gethostname()} (process "
    assert f"] {said}" in text
    assert "paratrain: rank 0 of 2 has waited 1 s (--stall-abort 0.6) for rank 1 on" in text
    assert "iteration 3, backward of 'conv1', for" in text
    assert "in endless" in text.partition("rank 1:\n")[2]


def test_a_rank_that_was_suspended_with_its_helper_has_not_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Slurm suspends a job: for a moment after it, a rank is still stopped, and the helper runs already."""
    here, there = socket.socketpair()
    memory = create_memory("board", SIZE_BYTES), create_memory("crash", 0)
    rank = LocalRank(Wire(here), {"rank": 0}, os.getpid(), "here", memory)
    monkeypatch.setattr("paratrain.watching.local.is_stopped", lambda _: True)
    assert rank.state(100.0).stopped_s < 0.01
    assert rank.state(103.0).stopped_s == 3.0
    rank.pass_over(600.0)
    assert rank.state(704.0).stopped_s == 4.0
    rank.close()
    there.close()


class Link:
    """A stretch of the way between two helpers, which can be cut: what comes is kept, and nothing is closed."""

    def __init__(self, port: int, *, is_cut_after_greeting: bool = False) -> None:
        self._is_cut_after_greeting = is_cut_after_greeting
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.is_cut = False
        self._far = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._near = self._server.accept()[0]
        back = threading.Thread(target=self._copy, args=(self._far, self._near), daemon=True)
        back.start()
        self._copy(self._near, self._far)

    def _copy(self, source: socket.socket, destination: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1000):
                if not self.is_cut:
                    destination.sendall(data)
                if self._is_cut_after_greeting and destination is self._near and b'"welcome"' in data:
                    self.is_cut = True

    def close(self) -> None:
        for end in (self._server, self._near, self._far):
            end.close()


def test_both_sides_of_a_cut_link_end_with_a_report(capfd: pytest.CaptureFixture[str]) -> None:
    with job([1, 1]) as run:
        link = Link(run.helpers[0]["port"])
        run.start("", "", hub={"addresses": ["127.0.0.1"], "port": link.port})
        time.sleep(0.3)
        assert [process.poll() for process in run.ranks] == [None, None]
        link.is_cut = True
        begin = time.monotonic()
        assert run.codes() == [EXIT_WATCH] * 2
        assert time.monotonic() - begin < 5
        link.close()
    text = capfd.readouterr().err
    assert "paratrain: rank 1 of 2 on" in text
    assert ": the host is lost: nothing was heard from it for 1 s\n  rank 1 (process" in text
    assert ": the host of rank 0 is lost: nothing was heard from it for 1 s" in text


def test_a_link_that_is_cut_before_a_host_has_told_of_its_ranks(capfd: pytest.CaptureFixture[str]) -> None:
    with job([1, 1]) as run:
        link = Link(run.helpers[0]["port"], is_cut_after_greeting=True)
        run.start("", "", hub={"addresses": ["127.0.0.1"], "port": link.port})
        assert run.codes() == [EXIT_WATCH] * 2
        link.close()
    text = capfd.readouterr().err
    assert "paratrain: the ranks on " in text
    assert ": the host is lost: nothing was heard from it for 1 s" in text
    assert ": the host of rank 0 is lost: nothing was heard from it for 1 s" in text


def test_strangers_and_helpers_that_gave_up_do_not_disturb(capfd: pytest.CaptureFixture[str]) -> None:
    with job([1, 1]) as run:
        port = run.helpers[0]["port"]
        hello = b'{"node": 1, "host": "node1", "number": "1"}\n'
        said = (b'{"number": "\xc3\xa9"}\n{}\n', b"[" * 4000 + b"\n", b"GET / HTTP/1.1\r\n\r\n", b"", hello, 2 * hello)
        for text in said:
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(text)
        run.start("time.sleep(0.5); sys.exit(0)", "time.sleep(0.5); sys.exit(0)", hub=run.helpers[0])
        assert run.codes() == [0, 0]
    assert capfd.readouterr().err == ""

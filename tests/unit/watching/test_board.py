"""Where a rank is, written by it and read by its helper."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paratrain.activity import Activity
from paratrain.watching.addresses import own_addresses
from paratrain.watching.board import SIZE_BYTES, Board, BoardReader, create_memory
from paratrain.watching.death import count_memory_kills, describe_end, exit_status, is_stopped, parent_of, program_of
from paratrain.watching.report import newest_snapshot
from paratrain.watching.state import ANY
from paratrain.watching.wire import Wire


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = create_memory("test", SIZE_BYTES)
    yield descriptor
    os.close(descriptor)


def test_what_is_entered_is_read(memory: int) -> None:
    activity, reader = Activity(), BoardReader(memory)
    board = Board(memory, activity)
    state = reader.read(2, "node7", 77)
    assert (state.where, state.waits_for, state.is_done) == ("iteration 0, starting", None, False)
    activity.iteration = 12
    for phase, name in (("data", "mnist"), ("forward", "größe"), ("data", "mnist")):
        activity.enter(phase, name)
        state = reader.read(2, "node7", 77)
        assert (state.where, state.rank, state.host) == (f"iteration 12, {phase} of '{name}'", 2, "node7")
        assert 0 <= state.there_s < 5
    assert state.count == activity.count == 3
    assert state.describe(4) == "rank 2 of 4 on node7, at iteration 12, data of 'mnist'"
    board.mark_done()
    assert reader.is_done
    assert not reader.is_explained
    board.mark_explained()
    assert reader.is_explained


def test_a_wait_is_told_until_the_next_activity(memory: int) -> None:
    activity, reader = Activity(), BoardReader(memory)
    board = Board(memory, activity)
    for peer in (ANY, 0, 3):
        board.wait(peer, 2.0)
        state = reader.read(0, "here", 1)
        assert state.waits_for == peer
        assert 2.0 <= state.waits_s < 5
    activity.enter("update")
    assert reader.read(0, "here", 1).waits_for is None
    board.wait(3, 1.0)
    board.wait(None, 0.0)
    assert reader.read(0, "here", 1).waits_for is None


def test_more_names_than_there_is_room_for(memory: int) -> None:
    activity, reader = Activity(), BoardReader(memory)
    Board(memory, activity)
    for number in range(4000):
        activity.enter("forward", f"layer{number:095d}")
    assert reader.read(0, "here", 1).phase == "at work"
    activity.enter("forward", f"layer{7:095d}")
    assert reader.read(0, "here", 1).name == f"layer{7:095d}"


def test_how_processes_end() -> None:
    killed = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 19)"])
    while not is_stopped(killed.pid):
        time.sleep(0.01)
    assert parent_of(killed.pid) == os.getpid()
    assert program_of(killed.pid).startswith("python")
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    status = exit_status(killed.pid)
    killed.wait()
    assert describe_end(status) == ("killed by SIGKILL", True)
    assert "memory runs out" in describe_end(status, memory_ran_out=True)[0]
    assert describe_end(11 | 0x80) == ("killed by SIGSEGV", False)
    assert describe_end(3 << 8)[0].startswith("the process has ended with exit code 3")
    assert exit_status(killed.pid) is None
    assert not is_stopped(killed.pid)
    assert describe_end(None) == ("the process has vanished", True)


def test_how_often_memory_ran_out(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 5\noom_kill 3\nlast 1\n")
    assert count_memory_kills(tmp_path / "vmstat") == 3
    assert count_memory_kills(tmp_path / "none") == 0


def test_the_newest_snapshot_is_the_last_that_was_finished(tmp_path: Path) -> None:
    prefix = str(tmp_path / "net[1]")
    assert newest_snapshot(prefix) is None
    for name in ("9.trainstate", "80.trainstate", "100.solverstate", "x.trainstate"):
        (tmp_path / f"net[1]_iter_{name}").write_text("state")
    (tmp_path / "net[1]_iter_90.trainstate").touch()
    assert newest_snapshot(prefix) == f"{prefix}_iter_80"


def test_messages_come_whole_and_in_order() -> None:
    near, far = map(Wire, socket.socketpair())
    text = "x" * 1_000_000  # more than the socket takes at once
    near.send({"kind": "long", "text": text})
    near.send({"kind": "short"})
    received = []
    while len(received) < 2:
        received += far.receive()
        near.send({"kind": "more"})
    assert [message["kind"] for message in received[:2]] == ["long", "short"]
    assert received[0]["text"] == text
    near.close()
    far.receive()
    assert not far.is_open
    far.close()


def test_what_is_no_message_closes_the_connection() -> None:
    near, far = socket.socketpair()
    wire = Wire(far)
    near.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert wire.receive() == []
    assert not wire.is_open
    wire.close()
    near.close()


def test_own_addresses_are_addresses() -> None:
    found = own_addresses()
    assert found[0] == "127.0.0.1"
    assert len(set(found)) == len(found)
    for address in found:
        socket.getaddrinfo(address, 1, flags=socket.AI_NUMERICHOST)

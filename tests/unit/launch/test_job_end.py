"""How a job ended, read from what mpirun and the ranks write. The texts are those of MPICH 5.0 and Open MPI 5.0."""

from __future__ import annotations

import signal

import pytest

from paratrain.launch.job_end import read_end
from paratrain.launch.reports import RankProcess, Reports

MPICH_KILLED = """
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 7593 RUNNING AT node2
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
"""
INTEL_KILLED = """
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   RANK 3 PID 4711 RUNNING AT node2
=   KILLED BY SIGNAL: 11 (Segmentation fault)
"""
OPEN_KILLED = """
prterun noticed that process rank 1 with PID 7605 on node node2 exited on
signal 9 (Killed).
"""
OPEN_ABORT = "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\n  Proc: [[17362,1],1]\n  Errorcode: 3\n"
OPEN_CODE = """
   Process name: [prterun-vm-7653@1,1]
   Exit code:    5
"""
MPICH_ABORT = "Abort(3) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 3) - process 1"


def reports(*, begun_at: int | None = 0) -> Reports:
    return Reports({0: RankProcess(7593, "node1"), 1: RankProcess(7593, "node2.cluster")}, begun_at)


@pytest.mark.parametrize(
    ("text", "rank", "host", "number", "code"),
    [
        (MPICH_KILLED, 1, "node2", 9, None),
        (MPICH_KILLED.rpartition("YOUR")[0], 1, "node2", 9, None),  # as on several hosts
        (MPICH_KILLED.rpartition("YOUR")[0].replace("CODE: 9", "CODE: 1280"), 1, "node2", None, 5),
        (INTEL_KILLED, 3, "node2", 11, None),
        (OPEN_KILLED, 1, "node2", 9, None),
        (OPEN_ABORT, 1, "node2.cluster", None, 3),
        (OPEN_CODE, 1, "node2.cluster", None, 5),
        (MPICH_ABORT, 1, "node2.cluster", None, 3),
        ("", None, None, None, None),
    ],
)
def test_what_mpirun_tells(text: str, rank: int | None, host: str | None, number: int | None, code: int | None) -> None:
    end = read_end(7, text, reports(), 1.0)
    assert (end.rank, end.host, end.signal, end.rank_code) == (rank, host, number, code)
    assert end.is_loss == (number is not None)
    assert "exit code 7" in end.describe()
    if number is not None:
        assert signal.Signals(number).name in end.describe()


def test_the_report_of_watched_ranks_counts_more() -> None:
    """MPICH names the process whose end it saw first, which may be one that it killed itself."""
    report = "paratrain: rank 0 of 2 on node1, at iteration 5, update: killed by SIGSEGV (process 1)"
    end = read_end(9, f"{report}\n{MPICH_KILLED}", reports(), 1.0)
    assert (end.rank, end.host, end.signal, end.is_silent) == (0, "node1", signal.SIGSEGV, False)
    lost = read_end(1, "paratrain: ranks 2 and 3 of 4 on node2: the host is lost: nothing was heard", reports(), 1.0)
    assert (lost.rank, lost.host, lost.is_silent, lost.is_loss) == (2, "node2", True, True)
    early = read_end(1, "paratrain: the ranks on node2: the host is lost: nothing was heard", reports(), 1.0)
    assert (early.rank, early.host, early.is_silent, early.is_loss) == (None, "node2", True, True)
    stopped = read_end(
        1,
        "paratrain: rank 1 of 2 on node2, at iteration 5, data: stopped by a signal (process 1) for 20 s",
        reports(),
        1.0,
    )
    assert (stopped.rank, stopped.host, stopped.signal, stopped.is_loss) == (1, "node2", None, True)
    report = "paratrain: rank 1 of 2 on node2, at iteration 0, starting: the process has ended with exit code 3, before"
    left = read_end(9, f"{report}\n{MPICH_KILLED}", reports(begun_at=None), 1.0)
    assert (left.rank, left.host, left.signal, left.is_loss, left.is_setup_error) == (1, "node2", None, False, True)
    assert "says mpirun" not in left.describe()
    report = "paratrain: rank 1 of 2 on node2, at iteration 7, data: the process has vanished (process 1)"
    gone = read_end(9, f"{report}\n{MPICH_KILLED}", reports(), 1.0)
    assert (gone.rank, gone.host, gone.signal, gone.is_loss) == (1, "node2", signal.SIGKILL, True)
    assert "rank 1 on node2 was ended by signal 9 (SIGKILL), says mpirun; rank 1 of 2" in gone.describe()
    own = read_end(1, f"paratrain: rank 1 of 2 on node2: record 'x' is not a Datum\n{MPICH_ABORT}", reports(), 1.0)
    assert not own.is_loss
    assert own.error == "rank 1 of 2 on node2: record 'x' is not a Datum"


def test_errors_before_training() -> None:
    text = "paratrain: solver.prototxt: no such file"
    assert read_end(1, text, reports(begun_at=None), 1.0).is_setup_error
    assert not read_end(1, text, reports(), 1.0).is_setup_error
    assert not read_end(1, "", reports(begun_at=None), 1.0).is_setup_error
    # killed from outside while it was set up, and somebody missed the one that was killed
    assert not read_end(9, text + MPICH_KILLED, reports(begun_at=None), 1.0).is_setup_error
    # stopped before the ranks were connected
    stopped = "paratrain: rank 1 of 2 on node2, at its start: stopped by a signal (process 1) for 21 s"
    assert not read_end(9, f"{stopped}\n{MPICH_KILLED}", Reports(), 1.0).is_setup_error
    # no rank has found the others: one that lacks a library ends itself so
    assert read_end(15, text + MPICH_KILLED.replace("9", "15"), Reports(), 1.0).is_setup_error


@pytest.mark.parametrize(
    "text",
    [
        "ssh: connect to host node7 port 22: No route to host\n[mpiexec@vm] ui_cmd_cb: Launch proxy failed.",
        "ssh: Could not resolve hostname node7: Name or service not known",
        "A daemon failed to report back after being spawned.\n  Local host:    vm\n  Remote host:   node7\n",
    ],
)
def test_a_host_that_cannot_be_reached(text: str) -> None:
    end = read_end(255, text, Reports(), 1.0)
    assert (end.host, end.rank, end.is_loss, end.is_setup_error) == ("node7", None, True, False)
    assert end.describe() == "exit code 255; node7 is lost or cannot be reached, says mpirun"


def test_a_signal_to_mpirun_itself() -> None:
    end = read_end(-9, "", reports(), 1.0)
    assert (end.code, end.signal) == (137, None)


def test_what_ranks_report_is_read_and_not_shown() -> None:
    found = Reports()
    assert found.read("paratrain-launch: rank 1 is process 12 on node1") is None
    assert found.read("paratrain-launch: training begins at iteration 30") is None
    assert (
        found.read("I1122 05:28:14 half a linparatrain-launch: rank 0 is process 11 on node1")
        == "I1122 05:28:14 half a lin"
    )
    assert found.read("something else") == "something else"
    assert found.read("paratrain-launch: something else") == "paratrain-launch: something else"
    assert found == Reports({1: RankProcess(12, "node1"), 0: RankProcess(11, "node1")}, 30)
    assert (found.rank_of(12, "node1.cluster"), found.rank_of(12, "node2"), found.rank_of(13, None)) == (1, None, None)

"""Signals to real processes: what they ask is done by all ranks together, after the iteration or within a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.cli import COMMAND, ENVIRONMENT, SMALL_NET, write_solver

ENDLESS = "max_iter: 1000000\ndisplay: 1\n"


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


@contextmanager
def training(
    folder: Path, *arguments: str, launcher: tuple[str, ...] = (), until: str = "Iteration 2 ("
) -> Iterator[subprocess.Popen[str]]:
    """A run that has come to its iteration 2; whatever is left of it in the end is killed."""
    command = [*launcher, *COMMAND, "train", *arguments]
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        try:
            read_until(process, until)
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"'{text}' never came: {lines}")


def rest_of(process: subprocess.Popen[str]) -> tuple[list[str], int]:
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    return [line.split("] ", 1)[-1] for line in lines], process.wait(timeout=30)


def rank_processes(mpirun: subprocess.Popen[str]) -> list[int]:
    """The ranks below mpirun, as Linux lists processes."""
    parents, commands = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
                commands[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])

    def is_below(pid: int) -> bool:
        return pid == mpirun.pid or (pid in parents and is_below(parents[pid]))

    found = [pid for pid in parents if is_below(pid) and b"\0paratrain\0train" in commands[pid]]
    return sorted(pid for pid in found if not commands[pid].split(b"\0")[0].endswith((b"mpirun", b"hydra_pmi_proxy")))


def snapshots(folder: Path) -> list[int]:
    return sorted(int(re.findall(r"_iter_(\d+)", path.name)[0]) for path in folder.glob("small_iter_*.solverstate"))


def test_sigint_stops_after_the_iteration_as_in_caffe(folder: Path) -> None:
    with training(folder, write_solver(folder, ENDLESS)) as process:
        process.send_signal(signal.SIGINT)
        lines, code = rest_of(process)
    assert code == 0
    assert "SIGINT: stop when this iteration, or batch of a test, is done" in lines
    assert lines[-2:] == ["Optimization stopped early.", "Optimization Done."]
    [iteration] = snapshots(folder)
    assert iteration >= 3


def test_a_stop_without_a_snapshot(folder: Path) -> None:
    solver = write_solver(folder, ENDLESS + "snapshot_after_train: false\n")
    with training(folder, solver, "-sighup_effect", "stop") as process:
        process.send_signal(signal.SIGHUP)
        lines, code = rest_of(process)
    assert (code, lines[-2]) == (0, "Optimization stopped early.")
    assert snapshots(folder) == []


def test_sighup_snapshots_and_sigterm_snapshots_and_stops(folder: Path) -> None:
    solver = write_solver(folder, ENDLESS + "snapshot_after_train: false\n")
    with training(folder, solver, "-sigint_effect=none") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        read_until(process, "Snapshotting solver state")
        read_until(process, "Iteration ")
        process.send_signal(signal.SIGTERM)
        lines, code = rest_of(process)
    assert code == 0
    assert "SIGTERM: a snapshot and stop when this iteration, or batch of a test, is done" in lines
    assert not any("SIGINT" in line for line in lines)
    first, last = snapshots(folder)
    assert first < last


SLOW = """
import sys, time
class Slow:
    def setup(self, bottom, top): self.count = 0
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        self.count += 1
        if self.count == 3:
            print("sleeping", file=sys.stderr, flush=True)
            time.sleep(60)
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff
"""


def test_a_second_sigint_does_not_wait_for_the_iteration(folder: Path) -> None:
    (folder / "slow_layer.py").write_text(SLOW)
    layer = (
        'layer { name: "slow" type: "Python" bottom: "ip2" top: "slow" '
        'python_param { module: "slow_layer" layer: "Slow" } }\n'
    )
    place = SMALL_NET.index("layer", SMALL_NET.index('"ip2"') + 1)
    net = SMALL_NET[:place] + layer + SMALL_NET[place:]
    begin = time.monotonic()
    with training(folder, write_solver(folder, ENDLESS, net=net), "--allow-python", until="sleeping") as process:
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        lines, code = rest_of(process)
    assert code == 130
    assert lines[-1] == "paratrain: interrupted"
    assert not any("Traceback" in line for line in lines)
    assert time.monotonic() - begin < 45


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_mpirun_passes_signals_on_and_all_ranks_end_together(folder: Path, mpirun: str, number: signal.Signals) -> None:
    with training(folder, write_solver(folder, ENDLESS), launcher=(mpirun, "-n", "2")) as process:
        process.send_signal(number)
        lines, code = rest_of(process)
    assert code == 0, lines
    assert lines[-2:] == ["Optimization stopped early.", "Optimization Done."]
    assert len(snapshots(folder)) == 1


def test_a_signal_to_one_rank_is_obeyed_by_all(folder: Path, mpirun: str) -> None:
    """To the rank that is not the root: a snapshot, which the root writes, then a stop."""
    with training(folder, write_solver(folder, ENDLESS), launcher=(mpirun, "-n", "2")) as process:
        ranks = rank_processes(process)
        assert len(ranks) == 2
        other = next(pid for pid in ranks if b"PMI_RANK=1\0" in (Path("/proc") / str(pid) / "environ").read_bytes())
        os.kill(other, signal.SIGHUP)
        read_until(process, "Snapshotting solver state")
        os.kill(other, signal.SIGINT)
        lines, code = rest_of(process)
    assert code == 0, lines
    assert lines[-2:] == ["Optimization stopped early.", "Optimization Done."]
    assert len(snapshots(folder)) == 2


def long_test(folder: Path, settings: str = "") -> str:
    """A run whose test, before iteration 2, would take hours."""
    return write_solver(
        folder, f"{ENDLESS}test_iter: 100000000\ntest_interval: 2\ntest_initialization: false\n{settings}"
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_sigint_breaks_a_long_test_off(folder: Path, mpirun: str, ranks: int) -> None:
    launcher = (mpirun, "-n", "2") if ranks > 1 else ()
    begin = time.monotonic()
    with training(folder, long_test(folder), launcher=launcher, until="Testing net") as process:
        process.send_signal(signal.SIGINT)
        lines, code = rest_of(process)
    assert code == 0, lines
    assert lines.index("Test interrupted.") < lines.index("Optimization stopped early.")
    assert not any("Test net output" in line or "Iteration 2, lr" in line for line in lines)
    assert snapshots(folder) == [2]
    assert time.monotonic() - begin < 60


def test_sighup_snapshots_within_a_test_which_goes_on(folder: Path, mpirun: str) -> None:
    """To the rank that is not the root; then SIGTERM to it ends the run, with no second snapshot."""
    settings = "snapshot_after_train: false\n"
    with training(folder, long_test(folder, settings), launcher=(mpirun, "-n", "2"), until="Testing net") as process:
        other = next(
            pid
            for pid in rank_processes(process)
            if b"PMI_RANK=1\0" in (Path("/proc") / str(pid) / "environ").read_bytes()
        )
        os.kill(other, signal.SIGHUP)
        read_until(process, "Snapshotting solver state")
        while not (folder / "small_iter_2.trainstate").exists():
            time.sleep(0.05)
        written = (folder / "small_iter_2.trainstate").read_bytes()
        os.kill(other, signal.SIGTERM)
        lines, code = rest_of(process)
    assert code == 0, lines
    assert "Test interrupted." in lines
    assert snapshots(folder) == [2]
    assert (folder / "small_iter_2.trainstate").read_bytes() == written

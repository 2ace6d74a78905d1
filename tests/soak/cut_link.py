"""What a job does whose link is cut while it trains."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.integration.cli import COMMAND, ENVIRONMENT
from tests.soak.hosts import TwoHosts
from tests.soak.job_between_hosts import PARAMETER_BYTES, write_files, write_solver

__all__ = ["Cut", "cut", "cut_table"]

_START_S = 120.0
_MOST_LINES = 30


@dataclass(frozen=True)
class Cut:
    """What happened after the link was cut."""

    exchange: str
    ended_s: Sequence[float | None]
    """For each host, seconds until its last rank had gone; None where one was there to the end."""
    mpirun_s: float | None
    """Seconds until mpirun had ended."""
    all_s: float | None
    """Seconds until nothing of the job was left on either host."""
    exit_code: int | None
    left: Sequence[str]
    """Commands of what was still there when the limit was reached."""
    said: Sequence[str]
    """What mpirun printed after the cut: what the ranks of the first host said, and it itself."""

    @property
    def is_good(self) -> bool:
        """Whether everything ended, with a report and an exit code that says so."""
        return self.all_s is not None and self.exit_code != 0 and bool(self.said)


def cut(
    hosts: TwoHosts, folder: Path, exchange: str, mpirun: str, options: Sequence[str], steps: int, limit_s: float
) -> Cut:
    """Cut the link when about so many ``steps`` have gone over it, and look how long who goes on."""
    place = folder / f"{exchange.replace(' ', '')}-cut"
    write_files(place)
    write_solver(place, 10**7)
    start = sum(hosts.traffic(0).bytes)
    train = [*COMMAND, "train", "solver.prototxt", "--exchange", *exchange.split(), *options]
    with _started([*hosts.mpirun(mpirun), *train], place) as run:
        deadline = time.monotonic() + _START_S
        while sum(hosts.traffic(0).bytes) - start < 2 * steps * PARAMETER_BYTES:
            assert run.poll() is None, f"{exchange} ended before the cut: {(place / 'said').read_text()[-3000:]}"
            assert time.monotonic() < deadline, "no training"
            time.sleep(0.02)
        hosts.cut()
        said_bytes = (place / "said").stat().st_size
        begin = time.monotonic()
        ended: list[float | None] = [None, None]
        mpirun_s = None
        while (waited_s := time.monotonic() - begin) < limit_s:
            if mpirun_s is not None and not any(map(hosts.processes, (0, 1))):
                break
            time.sleep(0.1)
            for host in (0, 1):
                if ended[host] is None and not _ranks(hosts, host):
                    ended[host] = waited_s
            if mpirun_s is None and run.poll() is not None:
                mpirun_s = waited_s
        left = [
            f"{hosts.names[host]}: {' '.join(_command(process))[:100]}"
            for host in (0, 1)
            for process in hosts.processes(host)
        ]
        exit_code = run.poll()
        hosts.kill_all()
    hosts.join()
    said = (place / "said").read_bytes()[said_bytes:].decode(errors="replace").splitlines()
    return Cut(exchange, ended, mpirun_s, None if left else waited_s, exit_code, left, said)


@contextlib.contextmanager
def _started(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "said").open("wb") as said:
        run = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=said, stderr=said, start_new_session=True)
        try:
            yield run
        finally:
            run.kill()
            run.wait()


def _ranks(hosts: TwoHosts, host: int) -> list[int]:
    """The processes of a host that train: those whose command is Python's, not those of MPI's launcher around it."""
    return [process for process in hosts.processes(host) if _command(process)[:3] == COMMAND]


def _command(process: int) -> list[str]:
    try:
        found = psutil.Process(process)
        return [] if found.status() == psutil.STATUS_ZOMBIE else found.cmdline()
    except psutil.Error:
        return []


def cut_table(cuts: Sequence[Cut]) -> str:
    """Who ended when, and what was said."""
    lines = [
        "| exchange | ranks of host a gone after | of host b | mpirun | everything | exit code |",
        "|---|---|---|---|---|---|",
    ]
    for one in cuts:
        ended = (*one.ended_s, one.mpirun_s, one.all_s)
        times = " | ".join("never" if seconds is None else f"{seconds:.1f} s" for seconds in ended)
        lines.append(f"| {one.exchange} | {times} | {one.exit_code} |")
    for one in cuts:
        said = list(one.said[:_MOST_LINES]) + (["..."] if len(one.said) > _MOST_LINES else [])
        lines += [
            "",
            f"Said after the cut, {one.exchange}:",
            "",
            *(f"    {line}"[:240] for line in said or ["nothing"]),
        ]
    return "\n".join(lines)

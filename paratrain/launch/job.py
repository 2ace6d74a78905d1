"""One job: mpirun and its ranks, from their start until the last of their processes on this machine is gone."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paratrain.errors import CommunicationError
from paratrain.launch.beginning import BeginningLook
from paratrain.launch.job_end import JobEnd, read_end
from paratrain.launch.reports import VARIABLE, Reports

__all__ = ["Asked", "processes_of", "run_job"]

logger = logging.getLogger(__name__)

_LOOK_S = 0.1
_ENDING_S = 5.0  # for what mpirun leaves to end by itself; only then is it killed
_DRAIN_S = 1.0
_MPIRUN_KILLS_S = 5.0  # for mpirun to end ranks on other machines, before it is killed itself
_GLOG = re.compile(r"[IWEF]\d{4} \d\d:")
_KEPT_LINES = 400
_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_SNAPSHOTS = (signal.SIGHUP, signal.SIGUSR2)


class Asked:
    """What signals have asked of the launcher: to stop, or to let the ranks write a snapshot. It is entered for the whole run."""

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        """The first signal that asked for an end: nothing is started after it."""
        self.is_urgent = False
        """A second signal has come: do not wait for the ranks."""
        self.pending: collections.deque[signal.Signals] = collections.deque()
        """Signals that are to be passed on to the ranks."""
        self._last_s = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Asked:
        for number in (*_STOPPING, *_SNAPSHOTS):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: types.FrameType | None) -> None:
        name, now = signal.Signals(number), time.monotonic()
        if name in _STOPPING and self.stop is not None:
            # A terminal, a shell and `timeout` may each send one for the same wish.
            self.is_urgent = self.is_urgent or now - self._last_s > 0.5
            return
        if name in _STOPPING:
            self.stop, self._last_s = name, now
        self.pending.append(name)


def run_job(
    command: Sequence[str], environment: Mapping[str, str], asked: Asked, *, family: str | None, grace_s: float
) -> JobEnd:
    """Run ``command``, mpirun with its options (or a single rank), to its end; return how it ended.

    Output goes to this process's stdout and stderr, line by line. ``family`` says how mpirun takes signals. After a
    signal to stop, the ranks have ``grace_s`` seconds, then they are killed. No process of the job on this machine is left,
    whatever happens, and mpirun ends those on others. Raises CommunicationError where ``command`` cannot be started.
    """
    job = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
    begin = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            env={**environment, VARIABLE: job},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a terminal's Ctrl-C comes to this process alone, which passes it on once
            preexec_fn=_end_with_parent(),
        )
    except OSError as error:
        raise CommunicationError(f"{command[0]}: cannot be started ({error.strerror})") from None
    output = _Output(process)
    kill_at_s = terminate_at_s = float("inf")
    look = BeginningLook(lambda: processes_of(job))
    try:
        while process.poll() is None:
            output.copy(_LOOK_S)
            if (problem := look.problem(output.reports)) is not None:
                output.say(f"paratrain: {problem}")
                kill_at_s = time.monotonic() + _MPIRUN_KILLS_S
            while asked.pending:
                number = asked.pending.popleft()
                _pass_on(number, process, job, output.reports, family)
                if number in _STOPPING:
                    terminate_at_s = time.monotonic() + grace_s
                    kill_at_s = terminate_at_s + _MPIRUN_KILLS_S
            now = time.monotonic()
            if asked.is_urgent:
                terminate_at_s = min(terminate_at_s, now)
                kill_at_s = min(kill_at_s, now + _MPIRUN_KILLS_S)
                asked.is_urgent = False
            if now >= terminate_at_s and now < kill_at_s:
                logger.warning(
                    "The ranks have not ended: ending mpirun, and what is left is killed in %g s", _MPIRUN_KILLS_S
                )
                terminate_at_s = float("inf")
                _end_mpirun(process, family)
            elif now >= kill_at_s:
                _kill(job)
                kill_at_s = float("inf")
        output.drain(_DRAIN_S if not processes_of(job) else 0.0)
        _wait_for_others(job, output)
    finally:
        # Where an exception has come this far, mpirun is among them.
        if count := _kill(job):
            logger.warning("Killed %s of the job that mpirun had left behind", _count(count, "process", "processes"))
        output.drain(_DRAIN_S)
        output.close()
        process.wait()
    return read_end(process.returncode, output.text, output.reports, time.monotonic() - begin)


def processes_of(job: str) -> list[int]:
    """The processes on this machine that carry the name of the job in their environment, whoever their parents are now."""
    wanted = f"{VARIABLE}={job}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):  # ended, or another user's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


class _Output:
    """What the job writes: shown as it comes, line by line, and the last lines of it kept."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.reports = Reports()
        self._first_error: str | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._selector = selectors.DefaultSelector()
        self._begun: dict[int, bytes] = {}  # lines that have not ended yet, by descriptor
        self._streams = (process.stdout, process.stderr)
        for stream, shown in zip(self._streams, (sys.stdout, sys.stderr), strict=True):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream.fileno(), selectors.EVENT_READ, shown)
            self._begun[stream.fileno()] = b""

    @property
    def text(self) -> str:
        """The last lines that are not of the log, after the first error of a rank."""
        return "\n".join([*([self._first_error] if self._first_error else []), *self._lines])

    def copy(self, longest_s: float) -> bool:
        """Copy what has come, after waiting for it ``longest_s`` at most; return whether anything was there."""
        if not self._selector.get_map():
            time.sleep(longest_s)
            return False
        ready = self._selector.select(longest_s)
        for key, _ in ready:
            try:
                piece = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                continue
            if not piece:
                self._selector.unregister(key.fd)
            *whole, self._begun[key.fd] = (self._begun[key.fd] + piece).split(b"\n")
            if not piece and self._begun[key.fd]:
                whole, self._begun[key.fd] = [self._begun[key.fd]], b""
            for line in whole:
                self._show(line, key.data)
        return bool(ready)

    def drain(self, longest_s: float) -> None:
        """Copy what is there already, and what comes until all writers are gone or ``longest_s`` have passed."""
        until = time.monotonic() + longest_s
        while self._selector.get_map():
            if not self.copy(min(_LOOK_S, longest_s)) and time.monotonic() >= until:
                return

    def say(self, text: str) -> None:
        """Add a line to what the job writes to stderr."""
        self._show(text.encode(), sys.stderr)

    def close(self) -> None:
        """Show lines that were never ended, and close the pipes."""
        for (_, begun), shown in zip(self._begun.items(), (sys.stdout, sys.stderr), strict=True):
            if begun:
                self._show(begun, shown)
        self._selector.close()
        for stream in self._streams:
            if stream is not None:
                stream.close()

    def _show(self, line: bytes, shown: Any) -> None:
        text = self.reports.read(line.decode(errors="replace"))
        if text is None:
            return
        shown.write(text + "\n")
        shown.flush()
        if _GLOG.match(text) is None:
            self._lines.append(text)
            if self._first_error is None and text.startswith("paratrain: "):
                self._first_error = text


def _pass_on(
    number: signal.Signals, process: subprocess.Popen[bytes], job: str, reports: Reports, family: str | None
) -> None:
    """Let the ranks have a signal, in the way that this mpirun leaves to them (docs/training.md, "Signals")."""
    if number in _SNAPSHOTS and family is not None:
        # mpirun would end on it. A signal to one rank counts for all: take one that runs here.
        here = set(processes_of(job))
        rank = next((rank for rank, place in sorted(reports.ranks.items()) if place.process in here), None)
        if rank is None:
            logger.warning("%s: no rank runs on this machine that could be told to write a snapshot", number.name)
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(reports.ranks[rank].process, number)
        return
    if number in _STOPPING and family == "openmpi":
        number = signal.SIGUSR1  # on the others it kills the ranks after half a second, on this it passes
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _end_mpirun(process: subprocess.Popen[bytes], family: str | None) -> None:
    """Ask mpirun to end all ranks, those on other machines as well."""
    with contextlib.suppress(ProcessLookupError):
        if family == "mpich":  # a second Ctrl-C is what it kills the ranks on
            process.send_signal(signal.SIGINT)
            time.sleep(_LOOK_S)
            process.send_signal(signal.SIGINT)
        else:
            process.terminate()


def _wait_for_others(job: str, output: _Output) -> None:
    """mpirun has ended: let what it is about to end do so."""
    until = time.monotonic() + _ENDING_S
    while processes_of(job) and time.monotonic() < until:
        output.copy(_LOOK_S)


def _kill(job: str) -> int:
    """Kill every process of the job on this machine; return how many there were. Those in the kernel's hands may last."""
    killed: set[int] = set()
    for _ in range(20):
        found = processes_of(job)
        if not found:
            break
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        killed.update(found)
        time.sleep(0.05)
    return len(killed)


def _end_with_parent() -> Callable[[], None]:
    """Return what the child runs before it becomes mpirun: if this process is killed, mpirun gets a SIGTERM."""
    library, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def prepare() -> None:
        library.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

"""End a rank of small training runs, in every way and at random moments, and look whether the others end or go on.

    scripts/soak/kill_ranks [--count 2] [--kinds SIGKILL,exception] [--ranks 2,3] [--starters mpirun,launch] [--save FILE]

A rank is killed by SIGKILL or SIGSEGV, or stopped by SIGSTOP: from outside at any time from the start of mpirun to the
first iteration, or from within in any phase, in the exchange, in a test, in a snapshot. Or a Python layer raises an exception,
calls sys.exit, or os._exit, in its set-up, forward, backward, or a test. "Early" is before the rank has imported anything, when
launchers overlook who leaves. --count says how often for each of these moments.

Under plain mpirun all must end by themselves, within 10 s, or 30 s after SIGSTOP, with an exit code that is not 0 and a report
that names the rank ("early": within that time from when the others have begun). Under `paratrain launch --restarts` the run must
end well, with the bytes of a run that nobody disturbed; except that an error, or an exit, in a layer's set-up or early ends
it, since a restart does not mend that. No process may be left, and in /dev/shm nothing but, under plain mpirun, MPI's own
segments; what has no file there (memfd) goes with the processes. As root all runs in a mount namespace with a /dev/shm of its
own, so that other programs do not disturb.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.machine import describe
from paratrain.comm.environment import launcher_environment
from paratrain.launch.leftovers import FOLDER, list_segments, remove_leftovers
from tests.integration.cli import COMMAND, ENVIRONMENT
from tests.soak.ending_job import CODES, LAST, MOMENTS, NOTE, Plan, write_files

STARTERS = ("mpirun", "launch")
_ENDED_S, _STOPPED_S = 10.0, 30.0
_LONGEST_S = 90.0
_LEAVE_S = 2.0  # for the helpers that watch the ranks, and leave after them
_MOST_TRIES = 6
_VARIABLE = "KILL_RANKS"
_TRAIN = ["train", "solver.prototxt", "--allow-python"]
_OWN_SHM = "KILL_RANKS_SHM"


@dataclass
class Row:
    """What was seen of one way to end, with one number of ranks and one starter."""

    kind: str
    ranks: int
    starter: str
    moments: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """From the event until all had ended; under `paratrain launch` this is the end of all training."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """One run."""

    code: int | None
    """None where it did not end."""
    seconds: float
    text: str
    left: Sequence[str]
    segments: Sequence[str]


def run(folder: Path, command: Sequence[str], plan: Plan | None) -> Seen:
    """Run the job; send the signal of a plan for "start". Whatever does not end is killed."""
    mark = uuid.uuid4().hex
    before, before_all = list_segments(), _shm_files()
    path = os.pathsep.join([str(folder / "early"), ENVIRONMENT["PYTHONPATH"]])
    environment = ENVIRONMENT | {_VARIABLE: mark, "PYTHONPATH": path}
    with (folder / "said").open("w+b") as said:
        started = time.time()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        with _killed_at_last(process, mark):
            if plan is not None and plan.moment == "start":
                _end_from_outside(folder, process, plan, mark, started)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LONGEST_S)
            ended = time.time()
            code = process.poll()
            while (left := _processes(mark)) and time.time() < ended + _LEAVE_S:
                time.sleep(0.05)
            left_behind = [f"process {number}: {_command(number)}" for number in left]
        said.seek(0)
        text = said.read().decode(errors="replace")
    segments = sorted(_shm_files() - before_all)
    remove_leftovers(before)
    note = folder / NOTE
    event = float(note.read_text().split()[0]) if note.exists() else started
    return Seen(code, ended - event, text, left_behind, segments)


def judge(seen: Seen, plan: Plan, starter: str, folder: Path, straight: Sequence[str], start_s: float) -> list[str]:
    """What is not as it should be. ``start_s`` is how long the ranks take to begin, before which none can look at the others."""
    problems = [f"left behind: {one}" for one in seen.left]
    if not (folder / NOTE).exists():
        problems.append("the moment has not come")
    if seen.code is None:
        return [*problems, "hangs"]
    is_setup = plan.moment == "setup" or (plan.moment == "early" and plan.kind in CODES)
    if starter == "mpirun" or is_setup:
        limit_s = (_STOPPED_S if plan.kind == "SIGSTOP" else _ENDED_S) + (start_s if plan.moment == "early" else 0.0)
        if seen.seconds > limit_s:
            problems.append(f"took {seen.seconds:.1f} s")
        if seen.code == 0:
            problems.append("exit code 0")
        process = (folder / NOTE).read_text().split()[1] if (folder / NOTE).exists() else "?"
        # Before ranks are watched the launcher alone tells, and MPICH may name one that it has ended itself.
        mpiruns = r"|PID \d+ RUNNING" if plan.moment == "start" else ""
        named = rf"rank {plan.rank}\b|process {process}\b{mpiruns}"
        if not re.search(named, seen.text):
            problems.append("the report does not name the rank")
        if is_setup and starter == "launch" and "Restart 1" in seen.text:
            problems.append("an error in the set-up was tried again")
    elif seen.code != 0:
        problems.append(f"exit code {seen.code}")
    elif sums(folder) != straight:
        problems.append("other parameters than those of the undisturbed run")
    mpis = ("mpich_shm_", "ucx_shm_posix_", "sm_segment.", "vader_segment.") if starter == "mpirun" else ()
    problems += [f"left in /dev/shm: {name}" for name in seen.segments if not name.startswith(mpis)]
    return problems


def sums(folder: Path) -> list[str]:
    """Of the last parameters, and of what the solver remembers."""
    files = [folder / f"net_iter_{LAST}.{kind}" for kind in ("caffemodel", "solverstate")]
    return [hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "missing" for file in files]


def draw(kind: str, moment: str, rank_count: int, rng: random.Random, start_s: float) -> Plan:
    """A random moment, inside the run."""
    most = {"setup": 1, "snapshot": LAST // 7, "exchange": 2 * LAST, "any": 12 * LAST, "test": LAST // 10}
    delay_s = rng.uniform(0, start_s) if moment == "start" else rng.uniform(0, 0.02 if moment == "snapshot" else 0.003)
    count = rng.randint(1, most.get(moment, LAST))
    # Tests from HDF5 run on the root alone.
    rank = 0 if kind in CODES and moment == "test" else rng.randrange(rank_count)
    return Plan(kind, moment, rank, count, delay_s, rng.choice((0, 3)))


def command_of(starter: str, rank_count: int, mpirun: str) -> list[str]:
    """The command that trains."""
    if starter == "mpirun":
        return [mpirun, "-n", str(rank_count), *COMMAND, *_TRAIN]
    return [*COMMAND, "launch", "-n", str(rank_count), "--restarts", "2", "--mpirun", mpirun, *_TRAIN]


def _end_from_outside(folder: Path, process: subprocess.Popen[bytes], plan: Plan, mark: str, started: float) -> None:
    """Send the rank its signal at the moment that was drawn, or as soon as it is there."""
    time.sleep(max(0.0, started + plan.delay_s - time.time()))
    while process.poll() is None and not (folder / NOTE).exists():
        for number in _processes(mark):
            with contextlib.suppress(OSError):
                if _rank_of(number) == plan.rank and _command(number).startswith(" ".join(COMMAND)):
                    (folder / NOTE).write_text(f"{time.time()} {number}")
                    os.kill(number, getattr(signal, plan.kind))
                    return
        time.sleep(0.005)


def _rank_of(process: int) -> int | None:
    words = (Path("/proc") / str(process) / "environ").read_bytes().decode(errors="replace").split("\0")
    found = launcher_environment(dict(word.split("=", 1) for word in words if "=" in word))
    return None if found is None else found.rank


@contextlib.contextmanager
def _killed_at_last(process: subprocess.Popen[bytes], mark: str) -> Iterator[None]:
    try:
        yield
    finally:
        for number in _processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()


def _processes(mark: str) -> list[int]:
    """The processes that carry the mark in their environment; those that have ended do not."""
    wanted, found = f"{_VARIABLE}={mark}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def _command(process: int) -> str:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(process) / "cmdline").read_text().replace("\0", " ").strip()
    return "gone meanwhile"


def _shm_files() -> set[str]:
    return {path.name for path in FOLDER.iterdir()} if FOLDER.is_dir() else set()


def table(rows: Sequence[Row]) -> str:
    """The rows as a table, and below it what was not as it should be."""
    lines = [
        "| a rank ends by | ranks | under | moments | seconds until the end, longest | result |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = f"{len(row.problems)} WRONG" if row.problems else "as it should be"
        lines.append(
            f"| {row.kind} | {row.ranks} | {row.starter} | {len(row.moments)} | {max(row.seconds):.1f} | {result} |"
        )
    moments = [f"- {row.ranks} ranks, {row.starter}: {'; '.join(row.moments)}" for row in rows]
    wrong = [f"- {problem}" for row in rows for problem in row.problems]
    return "\n".join([*lines, *(["", "Wrong:", "", *wrong] if wrong else []), "", "The moments:", "", *moments])


def main() -> int:
    """Do what the command line says; return 1 where something was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1, help="how often for each moment (default: 1)")
    parser.add_argument("--kinds", default=",".join(MOMENTS), help=f"ways to end (default: {','.join(MOMENTS)})")
    parser.add_argument("--ranks", default="2,3", help="numbers of ranks (default: 2,3)")
    parser.add_argument("--starters", default=",".join(STARTERS), help="mpirun, launch, or both (default)")
    parser.add_argument("--moments", default="", help="only these (default: all)")
    parser.add_argument("--seed", type=int, default=None, help="decides the moments; drawn and printed where left out")
    parser.add_argument("--mpirun", default=shutil.which("mpirun") or "mpirun", help="the launcher (default: mpirun)")
    parser.add_argument("--show", action="store_true", help="print what was said in runs that went wrong")
    parser.add_argument("--save", metavar="FILE", help="write the table to FILE, too")
    arguments = parser.parse_args()
    if os.geteuid() == 0 and shutil.which("unshare") and _OWN_SHM not in os.environ:
        mounting = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        again = ["unshare", "--mount", "sh", "-c", mounting, "sh", sys.executable, "-m", "tests.soak.kill_ranks"]
        os.execvpe(again[0], [*again, *sys.argv[1:]], {**os.environ, _OWN_SHM: "own"})
    seed = random.randrange(2**31) if arguments.seed is None else arguments.seed
    rng, rows = random.Random(seed), []
    head = f"{describe('mpi4py', 'mpich')}\n- seed {seed}\n"
    sys.stdout.write(head)
    only = [name for name in arguments.moments.split(",") if name]
    for rank_count in map(int, arguments.ranks.split(",")):
        with tempfile.TemporaryDirectory() as name:
            straight, start_s = _straight(Path(name) / "straight", rank_count, arguments.mpirun)
        for kind in arguments.kinds.split(","):
            for starter in arguments.starters.split(","):
                rows.append(Row(kind, rank_count, starter))
                for moment in [one for one in MOMENTS[kind] if not only or one in only] * arguments.count:
                    plan = draw(kind, moment, rank_count, rng, start_s)
                    _try(rows[-1], plan, arguments.mpirun, straight, start_s, is_shown=arguments.show)
                if not rows[-1].moments:
                    rows.pop()
                if arguments.save:  # what there is, should a later one fail
                    Path(arguments.save).write_text(f"# Ranks that end at random moments\n\n{head}\n{table(rows)}\n")
    sys.stdout.write(f"\n{table(rows)}\n")
    return 1 if any(row.problems for row in rows) else 0


def _straight(folder: Path, rank_count: int, mpirun: str) -> tuple[list[str], float]:
    """The sums of the undisturbed run, and the seconds from its start to its first iteration."""
    write_files(folder, None)
    started = time.time()
    done = run(folder, command_of("mpirun", rank_count, mpirun), None)
    assert done.code == 0, done.text[-3000:]
    assert not done.left, done.left
    return sums(folder), (folder / "begun").stat().st_ctime - started


def _try(row: Row, plan: Plan, mpirun: str, straight: Sequence[str], start_s: float, *, is_shown: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "job"
        write_files(folder, plan)
        seen = run(folder, command_of(row.starter, row.ranks, mpirun), plan)
        for _ in range(_MOST_TRIES):
            if seen.code != 0 or (folder / NOTE).exists():
                break
            shutil.rmtree(folder)  # the run was over before that moment came: take an earlier one
            plan = replace(plan, delay_s=plan.delay_s / 2, count=(plan.count + 1) // 2)
            write_files(folder, plan)
            seen = run(folder, command_of(row.starter, row.ranks, mpirun), plan)
        problems = judge(seen, plan, row.starter, folder, straight, start_s)
    row.moments.append(str(plan))
    row.seconds.append(seen.seconds)
    row.problems += [f"{row.ranks} ranks, {row.starter}, {plan}: {problem}" for problem in problems]
    result = "; ".join(problems) or "as it should be"
    sys.stdout.write(
        f"{row.ranks} ranks, {row.starter}, {plan}: {seen.seconds:.1f} s, exit code {seen.code}: {result}\n"
    )
    if problems and is_shown:
        sys.stdout.write("".join(f"    {line}\n" for line in seen.text.splitlines()[-40:]))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""``paratrain launch``: start mpirun and its ranks, watch them, and go on from the newest snapshot after a failure."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from paratrain.comm.environment import launcher_environment
from paratrain.errors import CommunicationError
from paratrain.launch import options
from paratrain.launch.hosts import Host, parse_hosts, read_host_file, slot_count
from paratrain.launch.job import Asked, run_job
from paratrain.launch.job_end import JobEnd
from paratrain.launch.leftovers import list_segments, remove_leftovers
from paratrain.launch.recipe_files import read_recipe, recipe_names
from paratrain.launch.restarting import Ranks, RestartRule
from paratrain.launch.self_launch import find_mpirun, mpirun_arguments, mpirun_family, own_core_count
from paratrain.launch.train_command import TrainCommand
from paratrain.log import init_log

__all__ = ["Job", "add_parser", "run", "watch"]

logger = logging.getLogger(__name__)

# Those that share their work among ranks.
_VERBS = ("train", "test", "time", "topology")
_LONGEST_PAUSE_S = 60.0
_THREADS = "OMP_NUM_THREADS"

_EXAMPLES = """\
  paratrain launch -n 2 --restarts 3 train solver.prototxt --keep 2
  paratrain launch --hosts localhost:2 train solver.prototxt
  paratrain launch --print one_node
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "launch",
        "start mpirun and its ranks, and go on from the newest snapshot after a failure",
        "Start mpirun, and through it the ranks of a verb (train, test, time, topology). A job that fails is started again "
        "from its\nnewest good snapshot as often as --restarts allows. SIGINT, SIGTERM and SIGUSR1 end training with a "
        "snapshot, SIGHUP and\nSIGUSR2 only write one, as for train itself. The exit code is that of the job.",
        _EXAMPLES,
    )
    parser.add_argument("-n", type=options.positive, dest="rank_count", metavar="N", help="how many ranks")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--hosts", metavar="A:4,B:4", help="the machines, and how many ranks each takes")
    where.add_argument("--hostfile", metavar="FILE", help="the same from a file: lines of node1:4 or node1 slots=4")
    parser.add_argument(
        "--restarts",
        type=_count,
        default=0,
        metavar="N",
        help="go on from the newest snapshot after a failure, at most N times in a row without a new snapshot (default: 0)",
    )
    parser.add_argument(
        "--min-ranks",
        type=options.positive,
        default=1,
        metavar="N",
        help="never go on with fewer ranks than N, where a rank or a machine fails again and again (default: 1)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long ranks have to end after a signal to stop, before they are killed (default: 60)",
    )
    parser.add_argument(
        "--mpirun", metavar="FILE", help="the mpirun to use (default: that of the MPI that mpi4py loads)"
    )
    parser.add_argument(
        "--mpirun-options", type=shlex.split, default=[], metavar="WORDS", help="more options for mpirun, as one word"
    )
    parser.add_argument("--print", dest="recipe", metavar="NAME", help=f"print a recipe: {', '.join(recipe_names())}")
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="VERB ...", help="what the ranks do, as in train solver.prototxt"
    )
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code of the last job. Raises ParatrainError."""
    if arguments.recipe is not None:
        sys.stdout.write(read_recipe(arguments.recipe))
        return 0
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words or words[0] not in _VERBS:
        found = f"'{words[0]}'" if words else "nothing"
        arguments.parser.error(f"say what the ranks do, one of {', '.join(_VERBS)}: found {found}")
    if words[0] != "train" and arguments.restarts:
        arguments.parser.error(f"--restarts goes with train alone: {words[0]} writes no snapshots to go on from")
    hosts = _hosts(arguments)
    count = arguments.rank_count or slot_count(hosts)
    if count == 0:
        arguments.parser.error("say how many ranks: -n N")
    if (started := launcher_environment(os.environ)) is not None:
        raise CommunicationError(
            f"paratrain launch starts mpirun itself, and runs under {started.launcher} already ({started.evidence}): leave "
            "one of the two out"
        )
    if hosts and count > slot_count(hosts):
        raise CommunicationError(
            f"-n {count}: the hosts take {slot_count(hosts)} ranks, {', '.join(map(str, hosts))}; give them more, as in "
            f"{hosts[0].name}:{hosts[0].slots + count - slot_count(hosts)}"
        )
    parsed = _parse(words)
    init_log(logging.INFO, quiet=getattr(parsed, "quiet", False))
    job = Job(arguments, hosts)
    if words[0] != "train":
        with Asked() as asked:
            return _exit_code(job.run(Ranks(count, hosts), words, asked), asked)
    return watch(
        job,
        TrainCommand(words, parsed, count),
        Ranks(count, hosts),
        limit=arguments.restarts,
        least_count=arguments.min_ranks,
    )


class Job:
    """How mpirun is started: what stays the same from start to start."""

    def __init__(self, arguments: argparse.Namespace, hosts: Sequence[Host]) -> None:
        self._options: list[str] = arguments.mpirun_options
        self._grace_s: float = arguments.grace
        self._mpirun = None if arguments.mpirun is None else Path(arguments.mpirun)
        self._needs_mpirun = bool(hosts or self._mpirun or self._options)
        self._family: str | None = None

    def run(self, ranks: Ranks, words: Sequence[str], asked: Asked) -> JobEnd:
        """Start the ranks, wait for their end, and remove what they left behind. Raises CommunicationError."""
        environment = dict(os.environ)
        command = self.command(ranks, words, environment)
        logger.info("Starting %d %s: %s", ranks.count, _plural(ranks.count, "rank"), shlex.join(command))
        before = list_segments()
        try:
            return run_job(command, environment, asked, family=self._family, grace_s=self._grace_s)
        finally:
            count, size_bytes = remove_leftovers(before)
            if count:
                logger.info(
                    "Removed %d %s of shared memory, %.1f MB, that MPI had left in /dev/shm and nobody uses",
                    count,
                    _plural(count, "segment"),
                    size_bytes / 1e6,
                )

    def command(self, ranks: Ranks, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """The command line that starts the ranks; without mpirun where one rank is all. Raises CommunicationError."""
        command = [sys.executable, "-m", "paratrain", *words]
        if ranks.count == 1 and not self._needs_mpirun:
            self._family = None
            return command
        if self._mpirun is None:
            self._mpirun = find_mpirun(environment)
        self._family = self._family or mpirun_family(self._mpirun)
        return mpirun_arguments(
            self._mpirun,
            self._family,
            ranks.count,
            command,
            os.geteuid() == 0,
            own_core_count(),
            hosts=[str(host) for host in ranks.hosts],
            options=self._options,
            variables=[
                name
                for name in ("PARATRAIN_LAUNCH", _THREADS, "PYTHONPATH")
                if name in {*environment, "PARATRAIN_LAUNCH"}
            ],
        )


def watch(
    job: Job, training: TrainCommand, ranks: Ranks, *, limit: int, least_count: int, first_pause_s: float = 1.0
) -> int:
    """Train to the end, over as many starts as the rule allows; return the exit code. Raises ParatrainError."""
    rule = RestartRule(limit, ranks, least_count, training.problem_with)
    with Asked() as asked:
        while True:
            end = job.run(ranks, training.words(ranks.count), asked)
            training.note_begin(end.reports.begun_at)
            if end.is_good or asked.stop is not None:
                return _exit_code(end, asked)
            logger.warning(
                "The job of %d %s has ended after %.1f s: %s",
                ranks.count,
                _plural(ranks.count, "rank"),
                end.wall_s,
                end.describe(),
            )
            decision = rule.decide(end, has_progress=training.has_progress())
            if decision.ranks is None:
                if limit:
                    logger.error("No restart: %s", decision.reason)
                return end.code
            if decision.reason:
                logger.warning(
                    "%s: going on with %d %s instead of %d", decision.reason, decision.ranks.count,
                    _plural(decision.ranks.count, "rank"), ranks.count,
                )  # fmt: skip
            ranks = decision.ranks
            if training.is_done():
                logger.info("All iterations were done, and their snapshot is good: nothing is left to do")
                return 0
            logger.info(
                "Restart %d of %d: %d %s, %s",
                decision.failures,
                limit,
                ranks.count,
                _plural(ranks.count, "rank"),
                training.origin(),
            )
            if not _pause(min(first_pause_s * 2 ** (decision.failures - 1), _LONGEST_PAUSE_S), asked):
                return _exit_code(end, asked)


def _exit_code(end: JobEnd, asked: Asked) -> int:
    """The job's exit code; where a signal has ended it and not just asked for a snapshot and the end, that signal's."""
    if asked.stop is None:
        return end.code
    if end.is_good:
        logger.info("Stopped as asked by %s", asked.stop.name)
        return 0
    logger.warning("Ended by %s: %s", asked.stop.name, end.describe())
    return 128 + (signal.SIGTERM if asked.stop == signal.SIGUSR1 else asked.stop)


def _pause(wait_s: float, asked: Asked) -> bool:
    """Give machines and ports a moment before the next start; return whether nobody has asked for an end meanwhile."""
    until = time.monotonic() + wait_s
    while asked.stop is None and time.monotonic() < until:
        time.sleep(0.05)
    return asked.stop is None


def _hosts(arguments: argparse.Namespace) -> tuple[Host, ...]:
    if arguments.hosts is not None:
        return tuple(parse_hosts(arguments.hosts))
    return tuple(read_host_file(arguments.hostfile)) if arguments.hostfile is not None else ()


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command of the ranks: what they would refuse is refused here, before anything is started."""
    parser = argparse.ArgumentParser(prog="paratrain", allow_abbrev=False)
    importlib.import_module(f"paratrain.launch.{words[0]}").add_parser(parser.add_subparsers(dest="verb"))
    return parser.parse_args(list(words))


def _plural(number: int, what: str) -> str:
    return what if number == 1 else f"{what}s"


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return value

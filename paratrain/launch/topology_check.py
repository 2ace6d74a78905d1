"""``--check`` and ``--measure`` of ``paratrain topology``: which links are tested, and what that changes in the plan."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from paratrain.launch.topology_source import Found, Wanted, make_plan
from paratrain.topology.machine import Machine
from paratrain.topology.planning.plan import Plan, plan_machine
from paratrain.topology.planning.view import AnyPlan

__all__ = ["CheckedPlan", "add_check", "plan_found", "run_as_ranks"]

DEFAULT_TIMEOUT_S = 10.0
# Without these there is no need to import what knows launchers, and with it NumPy.
_MAY_BE_RANK = frozenset({"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"})


@dataclass(frozen=True)
class CheckedPlan:
    """The plan, the machine with what is known of its links, the table of a test (no lines without one), its JSON values."""

    plan: AnyPlan
    found: Found
    lines: Sequence[str] = ()
    values: Sequence[dict[str, Any]] | None = None
    has_tree: bool = True
    """False if no tree without a bad link is left."""


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("testing the links of this machine")
    for name, help_text in (
        ("check", "move known bytes both ways over each edge of the tree, and plan around edges that are bad"),
        ("measure", "--check, and measure bandwidths and latencies"),
    ):
        group.add_argument(f"-{name}", f"--{name}", action="store_true", help=help_text)
    group.add_argument(
        "-timeout",
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="how long the test of one link may take, in seconds (default: %(default)g)",
    )


def run_as_ranks(arguments: argparse.Namespace) -> int | None:
    """Test the links between ranks if a launcher has started several; the exit code, None if there is nothing to do.

    Without a test rank 0 shows what there is to see, and the other ranks are done.
    """
    if not _is_wanted(arguments):
        if not _MAY_BE_RANK.intersection(os.environ):
            return None
        from paratrain.comm.environment import launcher_environment

        launcher = launcher_environment(os.environ)
        return 0 if launcher is not None and launcher.rank != 0 else None
    from paratrain.launch.link_ranks import run_on_ranks, under_launcher

    return run_on_ranks(arguments, _limits(arguments)) if under_launcher() else None


def plan_found(arguments: argparse.Namespace, found: Found, asked: Wanted) -> CheckedPlan:
    """Plan for a machine with what earlier tests of its links have found, or with a new test if one is asked for."""

    def replan(machine: Machine) -> Plan:
        return plan_machine(machine, asked.byte_counts[0], asked.root, asked.tree)

    is_here = arguments.source is None and arguments.machine is None
    if not _is_wanted(arguments):
        if is_here and found.machine.gpus:
            from paratrain.launch.link_check import known_links, verdicts

            machine, known = known_links(found.machine)
            found = replace(found, machine=machine, verdicts=verdicts(known))
        return CheckedPlan(make_plan(found, asked, asked.byte_counts[0]), found)
    if not is_here or arguments.nodes is not None:
        arguments.parser.error("--check tests this machine: leave out --from, --machine and --nodes")
    return _check_gpus(arguments, found, replan) if found.machine.gpus else _check_ranks(arguments, found, replan)


def _check_gpus(arguments: argparse.Namespace, found: Found, replan: Any) -> CheckedPlan:
    from paratrain.launch.link_check import check_gpus, verdicts
    from paratrain.linktest.results import to_values
    from paratrain.linktest.words import result_lines

    limits = _limits(arguments)
    tested = check_gpus(found.machine, replan, limits)
    return CheckedPlan(
        tested.plan,
        replace(found, machine=tested.machine, verdicts=verdicts(tested.results)),
        result_lines(tested.results, limits, "GPU"),
        [to_values(result) for result in tested.results],
    )


def _check_ranks(arguments: argparse.Namespace, found: Found, replan: Any) -> CheckedPlan:
    from paratrain.launch.link_ranks import start_ranks
    from paratrain.linktest.results import to_values
    from paratrain.linktest.words import result_lines

    limits = _limits(arguments)
    plan: Plan = replan(found.machine)
    if plan.tree is not None and plan.tree.root != 0:
        arguments.parser.error("--check: the root of ranks on CPU cores is rank 0; leave out --root")
    if plan.tree is None or plan.tree.size == 1:
        return CheckedPlan(plan, found, result_lines([], limits, "rank "), [])
    tested = start_ranks(plan, limits)
    return CheckedPlan(
        tested.plan,
        replace(found, machine=tested.plan.machine),
        result_lines(tested.results, limits, "rank "),
        [to_values(result) for result in tested.results],
        tested.has_tree,
    )


def _is_wanted(arguments: argparse.Namespace) -> bool:
    return bool(arguments.check or arguments.measure)


def _limits(arguments: argparse.Namespace) -> Any:
    from paratrain.linktest.results import Limits

    return Limits(link_s=arguments.timeout, measure=arguments.measure)


def _seconds(text: str) -> float:
    """A time above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no time; expected seconds, as in 10 or 2.5")
    return value

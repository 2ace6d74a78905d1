"""``paratrain topology --check`` for CPU ranks: on the ranks of a launcher, or on ranks that it starts itself."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paratrain.comm.environment import launcher_environment
from paratrain.errors import CommunicationError
from paratrain.launch.abort import agreed, connect, guard
from paratrain.launch.link_check import Tested, check_ranks
from paratrain.launch.rank_tree import choose_tree, describe_tree
from paratrain.launch.reports import report_rank
from paratrain.launch.self_launch import find_mpirun, mpirun_arguments, mpirun_family
from paratrain.launch.topology import EXIT_WARNINGS
from paratrain.linktest.child import kill_tree, module_command
from paratrain.linktest.ranks import RankCheck
from paratrain.linktest.results import Limits, LinkResult, Verdict, from_values, to_values
from paratrain.linktest.words import rank_warnings, result_lines
from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.costs.cost import predict_tree
from paratrain.topology.files.report import plan_values
from paratrain.topology.files.saved import SCHEMA
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import MachineWarning
from paratrain.topology.planner import binomial
from paratrain.topology.planning.plan import IN_ORDER, Plan, mark_best, planned_edges, shape_of
from paratrain.topology.tree import Tree

__all__ = ["run_on_ranks", "start_ranks", "under_launcher"]

_END_LIMIT_S = 10.0


def under_launcher() -> bool:
    """Whether this process is one of several ranks."""
    launcher = launcher_environment(os.environ)
    return launcher is not None and launcher.size != 1


def run_on_ranks(arguments: argparse.Namespace, limits: Limits) -> int:
    """Test the links between the ranks of the launcher, and let rank 0 print what was found; return the exit code.

    The tree is the one of ``--from FILE``, or that which training would use. 1 if no tree without a bad link is left, or if
    MPI does not end by itself after a hang; with ``--strict`` 3 if there are warnings.
    """
    communicator = connect()
    report_rank(communicator)
    planned = agreed(communicator, lambda: choose_tree(arguments.source, communicator))
    with guard(communicator):
        found = check_ranks(communicator, planned.tree, limits)
        hosts = communicator.allgather_objects(socket.gethostname())
        if communicator.rank == 0:
            values = _values(found, hosts, communicator.node_of_rank)
            text = json.dumps(values, indent=2) if arguments.json else "\n".join(_lines(found, limits))
            print(text, flush=True)
            for warning in values["warnings"] if arguments.json else ():
                print(f"warning {warning['code']}: {warning['message']}", file=sys.stderr)
            if arguments.save is not None:
                Path(arguments.save).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        communicator.barrier()
    if any(result.verdict in (Verdict.HANG, Verdict.ERROR) for result in found.results):
        # A message is still on its way: MPI may wait for it for ever when the process ends.
        faulthandler.dump_traceback_later(_END_LIMIT_S, exit=True, file=Path(os.devnull).open("w"))  # noqa: SIM115
    communicator.close()
    if found.tree is None:
        return 1
    return EXIT_WARNINGS if arguments.strict and _warnings(found) else 0


def start_ranks(plan: Plan, limits: Limits) -> Tested:
    """Start a rank for each CPU rank of the plan, let them test its links, and end them all when their time is over."""
    tree = plan.tree
    assert tree is not None
    with tempfile.TemporaryDirectory(prefix="paratrain-links-") as folder:
        file = Path(folder, "plan.json")
        file.write_text(json.dumps(plan_values(plan)), encoding="utf-8")
        answer = _run(tree.size, file, limits)
    if answer is None:
        limit_s = _all_s(tree.size, limits)
        detail = f"the ranks did not end within {limit_s:g} s and were killed"
        results = [LinkResult(min(edge), max(edge), "shared", Verdict.HANG, detail) for edge in tree.edges()]
        return _tested(plan, results, None, rank_warnings(results, has_tree=False))
    found = [from_values(values) for values in answer["tests"]]
    edges = answer["tree"]["edges"]
    left = None
    if answer["tree"]["root"] is not None:
        left = Tree.from_edges(tree.size, answer["tree"]["root"], [(edge["parent"], edge["child"]) for edge in edges])
    warnings = [
        MachineWarning(one["code"], one["message"], tuple(one["pair"]) if one["pair"] else None)
        for one in answer["warnings"]
    ]
    return _tested(plan, found, left, warnings)


def _run(rank_count: int, file: Path, limits: Limits) -> dict[str, Any] | None:
    """The JSON of ranks that run `run_on_ranks`; None if they did not end in time. CommunicationError if they print none."""
    command = [*module_command("paratrain"), "topology", "--check", "--json", "--from", str(file)]
    command += ["--timeout", repr(limits.link_s), *(["--measure"] if limits.measure else [])]
    mpirun = find_mpirun(os.environ)
    cores = len(os.sched_getaffinity(0))
    process = subprocess.Popen(
        mpirun_arguments(mpirun, mpirun_family(mpirun), rank_count, command, os.geteuid() == 0, cores),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=_all_s(rank_count, limits))
    except subprocess.TimeoutExpired:
        return None
    finally:
        kill_tree(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        last = errors.strip().splitlines()[-3:]
        code = signal.Signals(-process.returncode).name if process.returncode < 0 else process.returncode
        raise CommunicationError(
            f"the ranks ended ({code}) without an answer: {' '.join(last) or 'no message'}"
        ) from None
    return answer


def _all_s(rank_count: int, limits: Limits) -> float:
    """The time that everything may take: each link has its own limit, and a few are tested in place of bad ones."""
    return limits.start_s + limits.link_s * (4 if limits.measure else 2) * (rank_count + 1)


def _tested(plan: Plan, results: Sequence[LinkResult], tree: Tree | None, warnings: Sequence[MachineWarning]) -> Tested:
    """The plan with this tree, with figures of what was found, and with the warnings."""
    shown = plan.tree if tree is None else tree
    assert shown is not None
    figures = {
        result.pair: LinkFigure(result.bytes_per_s, result.latency_s or 0.0, origin="measured")
        for result in results
        if result.bytes_per_s is not None
    }
    machine = plan.machine.with_measured(figures).with_warnings(*warnings)
    fabric = MachineFabric(machine)
    in_order = binomial(shown.size, shown.root)
    is_in_order = shown == in_order
    shape = "index" if is_in_order else shape_of(shown)
    predictions = [
        predict_tree(fabric, shown, plan.byte_count, "tree" if is_in_order else shape),
        predict_tree(fabric, in_order, plan.byte_count, IN_ORDER),
    ]
    return Tested(
        replace(
            plan,
            machine=machine,
            tree=shown,
            trees=(shown,),
            shape=shape,
            tree_shape=shape,
            edges=planned_edges(fabric, shown),
            predictions=mark_best(predictions),
        ),
        results,
        tree is not None,
    )


def _lines(found: RankCheck, limits: Limits) -> list[str]:
    lines = result_lines(found.results, limits, "rank ")
    lines += [f"warning {one.code}: {one.message}" for one in _warnings(found)]
    if found.tree is not None and found.tree.size > 1:
        lines.append(f"Tree: {describe_tree(found.tree)}")
    return lines


def _values(found: RankCheck, hosts: Sequence[str], node_of_rank: Sequence[int]) -> dict[str, Any]:
    ranks = [{"rank": rank, "node": node_of_rank[rank], "host": host} for rank, host in enumerate(hosts)]
    return {
        "schema": SCHEMA,
        "ranks": ranks,
        "gpus": [],
        "cpu_ranks": [{"index": rank} for rank in range(len(hosts))],
        "links": [],
        "tests": [to_values(result) for result in found.results],
        "tree": _tree_values(found.tree),
        "warnings": [
            {"code": one.code, "pair": list(one.pair) if one.pair else None, "message": one.message}
            for one in _warnings(found)
        ],
    }


def _warnings(found: RankCheck) -> list[MachineWarning]:
    return rank_warnings(found.results, found.tree is not None, found.problem)


def _tree_values(tree: Tree | None) -> dict[str, Any]:
    if tree is None:
        return {"members": "ranks", "root": None, "depth": 0, "edges": []}
    edges = [{"parent": parent, "child": child} for parent, child in tree.edges()]
    return {"members": "ranks", "root": tree.root, "depth": tree.depth, "edges": edges}

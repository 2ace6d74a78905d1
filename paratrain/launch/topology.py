"""``paratrain topology``: the machine's links, the tree that follows them and the times to expect."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paratrain.launch.topology_check import CheckedPlan, add_check, plan_found, run_as_ranks
from paratrain.launch.topology_source import LENET_BYTES, MOST_NODES, MOST_RANKS, Wanted, find, make_plan, wanted
from paratrain.topology.costs.cost import Prediction
from paratrain.topology.planning.plan import SHAPES
from paratrain.topology.planning.simulation import Simulation
from paratrain.topology.planning.view import view_of
from paratrain.topology.show.draw import draw_plan, draw_warnings
from paratrain.topology.show.draw_times import draw_comparison, draw_predictions, draw_simulation, draw_steps
from paratrain.topology.show.style import Style

__all__ = ["EXIT_WARNINGS", "add_parser", "byte_count", "run"]

EXIT_WARNINGS = 3
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

_EXAMPLES = """\
  paratrain topology
  paratrain topology --machine list
  paratrain topology --machine dgx1-v100 --gpus 0,1,3 --bytes 64M
  paratrain topology --machine hgx-a100 --compare --bytes 100k --bytes 100M
  paratrain topology --machine hgx-h100 --nodes 4 --bytes 100M --simulate
  paratrain topology --from topo.txt      (what nvidia-smi topo -m has printed on some machine)
  paratrain topology --from topo.txt --svg topo.svg
  paratrain topology --ranks 4 --measure
  paratrain topology --from topo.txt --tree chain --save plan.json      (then: paratrain train --topology plan.json)
"""


def byte_count(text: str) -> int:
    """The bytes that a text such as ``64M`` stands for; k, M and G are powers of 1000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)B?", text.strip().replace("K", "k"))
    count = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no size; expected a number of bytes, as in 1724320, 64M or 1.5G")
    return count


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = subparsers.add_parser(
        "topology",
        help="show how the GPUs are linked and the tree planned over them",
        description="Show how the GPUs of a machine are linked, the tree that gradients and parameters will take, and how\n"
        "long an exchange should take. Only reads; changes and moves nothing, unless --check is given.\n\nExit code: 0 done, "
        f"1 input that cannot be used, 2 a command that cannot be understood, {EXIT_WARNINGS} warnings with --strict.",
        epilog=f"examples:\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_machine(parser)
    _add_plan(parser)
    add_check(parser)
    _add_output(parser)
    parser.set_defaults(run=run, parser=parser)


def _add(parser: argparse._ActionsContainer, name: str, **settings: object) -> None:
    parser.add_argument(f"-{name}", f"--{name}", **settings)  # type: ignore[arg-type]


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which machine")
    where = group.add_mutually_exclusive_group()
    _add(
        where,
        "from",
        dest="source",
        metavar="FILE",
        help="what `nvidia-smi topo -m` has printed on any machine, or a file of --save (- for standard input)",
    )
    _add(where, "machine", metavar="NAME", help="a machine of the catalogue ('list' names them)")
    _add(
        where,
        "ranks",
        type=lambda text: _count(text, MOST_RANKS),
        metavar="N",
        help="N ranks on the CPU cores of this machine",
    )
    _add(group, "gpus", metavar="0,1,3", help="these GPUs only")
    _add(
        group,
        "nodes",
        type=lambda text: _count(text, MOST_NODES),
        metavar="N",
        help="N such machines, joined by a network",
    )
    _add(group, "network", type=_rate, metavar="GB/S", help="what the network card of a node carries in each direction")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to plan")
    _add(
        group,
        "root",
        type=int,
        metavar="N",
        help="the GPU (or rank) at the root of the tree (default: whichever is fastest)",
    )
    shapes = "the fastest (auto), a tree, chain or star, the tree in the order of the indices, or trees on shards"
    _add(group, "tree", choices=SHAPES, help=f"{shapes} (default: auto, and index for ranks on CPU cores)")
    _add(
        group,
        "bytes",
        type=byte_count,
        action="append",
        metavar="N[k|M|G]",
        help=f"size of the buffer to plan for, in powers of 1000 (default: LeNet's parameters, {LENET_BYTES}); several "
        "are predicted, the first one is planned for",
    )
    _add(group, "model", metavar="NET", help="plan for the gradients of this net (a prototxt of a net or a solver)")
    _add(group, "compare", action="store_true", help="list the predicted times of all methods")
    _add(group, "simulate", action="store_true", help="simulate the exchange, transfer by transfer, beside the formula")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how to show it")
    form = group.add_mutually_exclusive_group()
    _add(form, "json", action="store_true", help="print JSON (schema 1), and warnings on standard error")
    _add(form, "dot", action="store_true", help="print Graphviz's language")
    _add(group, "svg", metavar="FILE", help="draw links and tree to FILE")
    _add(group, "save", metavar="FILE", help="write the JSON to FILE, for --from and for `paratrain train --topology`")
    _add(group, "strict", action="store_true", help=f"exit with {EXIT_WARNINGS} if there are warnings")


def run(arguments: argparse.Namespace) -> int:
    """Print the machine, its tree, predictions and warnings; return the exit code. Raises ParatrainError."""
    if arguments.machine == "list":
        from paratrain.topology.known_machines import machine_names

        print("\n".join(machine_names()))
        return 0
    code = run_as_ranks(arguments)
    if code is not None:
        return code
    found = find(arguments)
    asked = wanted(arguments, found)
    checked = plan_found(arguments, found, asked)
    plan, warnings = checked.plan, view_of(checked.plan).warnings
    shown = Shown(checked, asked, *_times(arguments, checked, asked))
    if arguments.svg is not None:
        from paratrain.topology.show.svg import draw_svg

        _write(arguments.svg, draw_svg(plan))
    if arguments.save is not None:
        _write(arguments.save, _json(shown))
    if arguments.json:
        print(_json(shown), end="")
        for warning in warnings:
            print(f"warning {warning.code}: {warning.message}", file=sys.stderr)
    elif arguments.dot:
        from paratrain.topology.show.dot import draw_dot

        print(draw_dot(plan), end="")
    else:
        print(_picture(shown, is_compared=arguments.compare))
    if not checked.has_tree:
        return 1
    return EXIT_WARNINGS if arguments.strict and warnings else 0


@dataclass(frozen=True)
class Shown:
    """A plan, and the predictions for every size that was asked for; simulations of the first."""

    checked: CheckedPlan
    asked: Wanted
    columns: Sequence[tuple[Prediction, ...]]
    simulations: Sequence[Simulation]


def _times(
    arguments: argparse.Namespace, checked: CheckedPlan, asked: Wanted
) -> tuple[list[tuple[Prediction, ...]], list[Simulation]]:
    others = asked.byte_counts[1:]
    plans = [checked.plan, *(make_plan(checked.found, asked, count) for count in others)]
    columns = [plan.predictions for plan in plans]
    if arguments.compare:
        from paratrain.topology.planning.compare import compare_methods

        columns = [compare_methods(plan) for plan in plans]
    if not arguments.simulate:
        return columns, []
    from paratrain.topology.planning.simulation import simulate_plan

    return columns, simulate_plan(checked.plan)


def _picture(shown: Shown, is_compared: bool) -> str:
    style, plan, found = _style(), shown.checked.plan, shown.checked.found
    parts = [draw_plan(plan, style, found.verdicts, with_times=False)]
    if shown.checked.lines:
        parts += ["", *shown.checked.lines]
    if plan.edges and shown.columns[0]:
        parts.append("")
        if is_compared:
            parts += draw_comparison(shown.columns, style)
        else:
            parts += [line for column in shown.columns for line in draw_predictions(column, style)]
            if not found.machine.gpus:
                from paratrain.launch.step_times import predict_steps  # which needs NumPy

                first = shown.asked.byte_counts[0]
                parts += ["", *draw_steps(predict_steps(plan, first), first, style)]
    if shown.simulations:
        parts += ["", *draw_simulation(shown.simulations, style)]
    return "\n".join([*parts, *draw_warnings(view_of(plan).warnings, style)])


def _json(shown: Shown) -> str:
    from paratrain.topology.files.report import plan_values, prediction_values
    from paratrain.topology.planning.simulation import simulation_values

    asked = shown.asked
    values = plan_values(shown.checked.plan, shown.checked.found.verdicts)
    values["predictions"] = [prediction_values(one) for column in shown.columns for one in column]
    values["simulations"] = simulation_values(shown.simulations)
    if shown.checked.values is not None:
        values["tests"] = list(shown.checked.values)
    values["wanted"] = {"tree": asked.tree, "root": asked.root, "bytes": list(asked.byte_counts), "nodes": asked.nodes}
    return json.dumps(values, indent=2) + "\n"


def _style() -> Style:
    """Box lines and colours on a terminal that can show them; plain characters into files and pipes."""
    on_terminal = sys.stdout.isatty()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    has_colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return Style(unicode=on_terminal and encoding == "utf8", colour=on_terminal and has_colours)


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)


def _count(text: str, most: int) -> int:
    """A whole number from 1 to `most`, for argparse."""
    digits = text.lstrip("0") if text.isascii() and text.isdecimal() else ""
    if not digits:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
    if len(digits) > len(str(most)) or int(digits) > most:
        raise argparse.ArgumentTypeError(f"'{text[:20]}' is more than can be planned for: {most:,} at most")
    return int(digits)


def _rate(text: str) -> float:
    """A bandwidth in GB/s, for argparse."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1e-9 <= rate < float("inf"):  # less than a byte a second
        raise argparse.ArgumentTypeError(f"'{text}' is no bandwidth; expected GB/s, as in 12.5")
    return rate

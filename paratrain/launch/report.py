"""``paratrain report``: one HTML page of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from paratrain.errors import DataError, TopologyError
from paratrain.launch import options
from paratrain.launch.topology_source import find, make_plan, wanted
from paratrain.proto import replace_atomically
from paratrain.tools.report import make_page
from paratrain.tools.runs import open_run
from paratrain.topology.show.svg import draw_svg

__all__ = ["add_parser", "run"]

_EXAMPLES = """\
  paratrain report run.jsonl                      (writes run.html)
  paratrain report . -o lenet.html                (a folder with metrics and a log)
  paratrain report train.log --title "LeNet, first try" --topology plan.json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "report",
        "make one HTML page of a run",
        "Write a page with the curves of a run, its speed and where the time went on each rank, the tree, the layers' shares, "
        "warnings and settings. The page needs no other file and no network. Metrics (--metrics of train) tell the most.",
        _EXAMPLES,
    )
    parser.add_argument(
        "run_path", metavar="RUN", help="metrics, a log of training (Caffe's own too), or a folder with either"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the page (default: named as RUN, ending in .html, here)"
    )
    parser.add_argument(
        "--topology",
        metavar="PLAN",
        help="show the machine of this plan, saved by `paratrain topology --save` (default: the one that the run was given)",
    )
    parser.add_argument("--title", help="stands at the top of the page (default: the name of the net)")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page. Raises ParatrainError."""
    source = Path(arguments.run_path)
    path = Path(arguments.output or f"{source.stem if source.is_file() else source.resolve().name}.html")
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a file for the page, such as {path / 'report.html'}")
    opened = open_run(source)
    page = make_page(opened, arguments.title, _picture(arguments.topology, opened.facts.get("topology")))
    try:
        with replace_atomically(path) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: the page cannot be written: {error.strerror}") from None
    print(f"Report: {path}")
    return 0


def _picture(wanted_plan: str | None, own_plan: str | None) -> str | None:
    """The drawing of a saved plan; None where none is asked for, and the run's own cannot be read any more."""
    if wanted_plan is None and (own_plan is None or not Path(own_plan).is_file()):
        return None
    try:
        found = find(argparse.Namespace(source=wanted_plan or own_plan, gpus=None, network=None))
        nothing = argparse.Namespace(tree=None, root=None, nodes=None, bytes=None, model=None, compare=False)
        asked = wanted(nothing, found)
        return draw_svg(make_plan(found, asked, asked.byte_counts[0]))
    except TopologyError:
        if wanted_plan is not None:
            raise
        return None

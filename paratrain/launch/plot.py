"""``paratrain plot``: curves of runs, from their logs or metrics."""

from __future__ import annotations

import argparse
from pathlib import Path

from paratrain.launch import options
from paratrain.registry import nearest
from paratrain.tools.plot import CHARTS, FORMATS, PlotOptions, draw, summary
from paratrain.tools.runs import AXES, Run, open_run

__all__ = ["add_parser", "run"]

# Caffe's plot_training_log numbers its charts.
_CAFFE = (
    ("accuracy", "iterations"), ("accuracy", "seconds"), ("test loss", "iterations"), ("test loss", "seconds"),
    ("lr", "iterations"), ("lr", "seconds"), ("train loss", "iterations"), ("train loss", "seconds"),
)  # fmt: skip
_CAFFE_LIST = "\n".join(f"  {number}  {chart} against {axis}" for number, (chart, axis) in enumerate(_CAFFE))

_EXAMPLES = """\
  paratrain plot run.jsonl                            (draws to plot.png)
  paratrain plot run.jsonl -o run.svg --show loss,accuracy --log
  paratrain plot mine=run.jsonl caffe=train.log --against seconds --show loss -o both.pdf
  paratrain plot 6 loss.png train.log run.jsonl       (as Caffe's plot_training_log: chart type, picture, logs)
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "plot",
        "draw loss, accuracy, learning rate, speed and where the time goes",
        "Draw the curves of one run, or of several beside each other. A run is a log of training, Caffe's own included, what "
        f"--metrics has written, or a folder with either.\n\nchart types of Caffe's plot_training_log:\n{_CAFFE_LIST}",
        _EXAMPLES,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a log, metrics or a folder; NAME=RUN gives it a name")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"the picture, {', '.join(FORMATS[:-1])} or {FORMATS[-1]} (default: plot.png)",
    )
    parser.add_argument(
        "--show", type=_charts, default=(), metavar="A,B", help=f"which of: {', '.join(CHARTS)} (default: all there is)"
    )
    parser.add_argument("--against", choices=AXES, help="what is along the bottom (default: iterations)")
    parser.add_argument(
        "--epoch-iterations",
        type=_positive_number,
        metavar="N",
        help="iterations of an epoch, where a run does not say so itself",
    )
    parser.add_argument(
        "--type", type=int, choices=range(len(_CAFFE)), metavar="N", help="a chart type of Caffe's, see above"
    )
    parser.add_argument("--log", action="store_true", help="losses on a logarithmic scale")
    parser.add_argument(
        "--smooth",
        type=options.positive,
        default=1,
        metavar="K",
        help="average the losses of training over K displayed ones",
    )
    parser.add_argument("--title", help="stands above the picture")
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw what is asked for and print a summary. Raises ParatrainError."""
    parser: argparse.ArgumentParser = arguments.parser
    named: list[str] = list(arguments.runs)
    chart_type, output = arguments.type, arguments.output
    if _is_caffe_form(named, output):
        chart_type, output = int(named.pop(0)), named.pop(0)
        if not chart_type < len(_CAFFE):
            parser.error(f"chart type {chart_type} is not one of 0 to {len(_CAFFE) - 1}:\n{_CAFFE_LIST}")
    if chart_type is not None and (arguments.show or arguments.against):
        parser.error("a chart type says what is drawn, and against what; leave --show and --against out")
    charts, against = arguments.show, arguments.against or "iterations"
    if chart_type is not None:
        chart, against = _CAFFE[chart_type]
        charts = (chart,)
    path = Path(output or "plot.png")
    if path.suffix.lower() not in FORMATS:
        parser.error(f"{path}: the name must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    runs = [_open(text, arguments.epoch_iterations) for text in named]
    _tell_apart(runs)
    settings = PlotOptions(charts, against, arguments.log, arguments.smooth, arguments.title)
    draw(runs, path, settings)
    for one in runs:
        for line in summary(one):
            print(f"{one.name}: {line}" if len(runs) > 1 else line)
    print(f"Plot: {path}")
    return 0


def _is_caffe_form(words: list[str], output: str | None) -> bool:
    return (
        output is None
        and len(words) >= 3
        and words[0].isdecimal()
        and not Path(words[0]).exists()
        and Path(words[1]).suffix.lower() in FORMATS
    )


def _open(text: str, epoch_iterations: float | None) -> Run:
    """Open ``RUN`` or ``NAME=RUN``; the latter where there is no file of that whole name."""
    name, equals, path = text.partition("=")
    given = bool(equals and name and path) and not Path(text).exists()
    opened = open_run(path if given else text)
    if given:
        opened.name = name
    if epoch_iterations is not None:
        opened.facts["iterations_per_epoch"] = epoch_iterations
    return opened


def _tell_apart(runs: list[Run]) -> None:
    """Name runs whose files have the same name by their folders, and by numbers where that does not help."""
    for one in _with_same_names(runs):
        one.name = str(one.paths[0].parent / one.name)
    for number, one in enumerate(_with_same_names(runs), start=1):
        one.name = f"{one.name} ({number})"


def _with_same_names(runs: list[Run]) -> list[Run]:
    names = [one.name for one in runs]
    return [one for one in runs if names.count(one.name) > 1]


def _charts(text: str) -> tuple[str, ...]:
    charts = tuple(word.strip() for word in text.split(",") if word.strip())
    unknown = next((chart for chart in charts if chart not in CHARTS), None)
    if unknown is not None or not charts:
        near = nearest(unknown or "", list(CHARTS), 1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise argparse.ArgumentTypeError(f"'{unknown or text}' is none of {', '.join(CHARTS)}{meant}")
    return charts


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value

"""What stands on the page about a run, part by part. Each part is empty where the run tells nothing of it."""

from __future__ import annotations

import base64
import html
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from paratrain.tools.report.bars import Bar, bars
from paratrain.tools.report.chart import Curve, line_chart, share_chart
from paratrain.tools.report.tree import MOST_RANKS, draw_tree
from paratrain.tools.runs.run import PARTS, Run, Series, kind_of
from paratrain.topology.tree import Tree

__all__ = ["curves", "layers", "machine", "ranks", "settings", "speed", "warnings"]

_MOST_BARS = 40
_MOST_WARNINGS = 100
_NAMES = [part.removesuffix("_s") for part in PARTS]
_FACTS = (
    ("command", "command"), ("folder", "in the folder"), ("solver_file", "solver"), ("net", "net"), ("version", "paratrain"),
    ("backend", "computes with"), ("random_seed", "seed"), ("images_per_iteration", "images an iteration"),
    ("record_count", "records"), ("iterations_per_epoch", "iterations an epoch"), ("parameter_count", "learnable values"),
    ("exchange", "exchange"),
)  # fmt: skip


def curves(run: Run) -> str:
    """Loss, accuracy, other outputs of tests, and the learning rate."""
    loss = [_curve(run, "training", run.training.get("loss", {}), 0)]
    least, most = run.training.get("loss_min", {}), run.training.get("loss_max", {})
    if len(least) > 1 and set(run.training["loss"]) <= set(least) & set(most):
        at = sorted(run.training["loss"])
        band = [least[one] for one in at], [most[one] for one in at]
        loss = [Curve("training, with the range over ranks", [float(one) for one in at], loss[0].y, 0, band=band)]
    tested = run.named_tests("loss")
    loss += [_curve(run, _of_test(key), series, 1 + place % 5, is_test=True)
             for place, (key, series) in enumerate(tested.items())]  # fmt: skip
    charts = [line_chart("Loss", loss, "iteration", may_be_logarithmic=True)]
    accurate = run.named_tests("accuracy")
    charts.append(line_chart("Accuracy", _of_tests(run, accurate), "iteration"))
    others = {key: series for key, series in run.tests.items() if key not in tested and key not in accurate}
    if others and len(others) <= 6:
        charts.append(line_chart("Other outputs of tests", _of_tests(run, others), "iteration"))
    outputs = {name: series for name, series in run.outputs.items() if series != run.training.get("loss")}
    if len(run.outputs) > 1 and 0 < len(outputs) <= 6:
        found = [_curve(run, name, series, place) for place, (name, series) in enumerate(outputs.items())]
        charts.append(line_chart("Outputs in training", found, "iteration", may_be_logarithmic=True))
    charts.append(line_chart("Learning rate", [_curve(run, "lr", run.training.get("lr", {}), 2)], "iteration"))
    return _section("Curves", _two_columns([*charts, _scores(run)]))


def _scores(run: Run) -> str:
    """The last and the best score of each output of a test."""
    rows = []
    for (net, name), series in run.tests.items():
        finite = {at: value for at, value in series.items() if math.isfinite(value)}
        if not finite:
            continue
        last = max(finite)
        best = ""
        if kind_of(name):
            choose = max if kind_of(name) == "accuracy" else min
            at = choose(finite, key=lambda one: finite[one])
            best = f"{finite[at]:.5g} at {at}"
        rows.append((_of_test((net, name)), f"{finite[last]:.5g} at {last}", best))
    return f'<div class="card"><h3>Tests</h3>{_table(("output", "last", "best"), rows)}</div>' if rows else ""


def speed(run: Run) -> str:
    """Images a second, and where the time goes on the root."""
    charts = [
        line_chart(
            "Images a second, of all ranks", [_curve(run, "", run.training.get("images_per_s", {}), 2)], "iteration"
        )
    ]
    parts = {name: run.training[name] for name in PARTS if run.training.get(name)}
    if not parts:
        note = (
            "This run does not tell where the time went: a log has no such figures. Train with "
            "<code>--metrics run.jsonl</code> to see it."
        )
        return _section("Speed", _two_columns([*charts, f'<div class="card"><p class="soft">{note}</p></div>']))
    shared = sorted(set.intersection(*(set(series) for series in parts.values())))
    timed = [at for at in shared if sum(series[at] for series in parts.values()) > 0]
    sums = {at: sum(series[at] for series in parts.values()) for at in timed}
    shares = [(name.removesuffix("_s"), [series[at] / sums[at] for at in timed]) for name, series in parts.items()]
    charts.append(share_chart("Where the time goes, on the root", [float(at) for at in timed], shares, "iteration"))
    rows = []
    steps = _steps(timed)
    total = sum(series[at] for series in parts.values() for at in timed[1:] or timed)
    for name, series in parts.items():
        seconds = sum(series[at] for at in timed[1:] or timed)
        rows.append(
            (name.removesuffix("_s"), f"{1000 * seconds / steps:.4g}", f"{seconds / total:.1%}" if total else "")
        )
    head = "<h3>An iteration on the root, in the mean</h3>"
    table = f'<div class="card">{head}{_table(("part", "ms", "share"), rows, numbers=True)}</div>'
    predicted = run.training.get("exchange_predicted_s", {})
    if predicted and all(name in parts for name in ("exchange_s", "update_s")):
        measured = [parts["exchange_s"][at] + parts["update_s"][at] for at in timed]
        compared = [
            Curve("measured", [float(at) for at in timed], _each(measured, timed), 3),
            Curve("predicted", [float(at) for at in timed], _each([predicted.get(at, math.nan) for at in timed], timed), 5, True),
        ]  # fmt: skip
        charts.append(line_chart("Exchange and update, seconds an iteration", compared, "iteration"))
    return _section("Speed", _two_columns([*charts, table]))


def ranks(run: Run) -> str:
    """Where the time goes on each rank, so that a slow one is seen, and the tree over them."""
    return _section("Ranks", _two_columns([_rank_times(run), _tree(run)]))


def _rank_times(run: Run) -> str:
    if not run.ranks:
        return ""
    hosts: list[str] = run.facts.get("hosts", [])
    shown = sorted(run.ranks)
    kept = shown[1:] or shown  # the first iteration is slow, and no step ends there
    count = max(len(each) for each in run.ranks[shown[-1]].values())
    means = [
        [sum(_at(run.ranks[at].get(name, ()), rank) for at in kept) / _steps(shown) for name in PARTS]
        for rank in range(count)
    ]
    order = list(range(count))
    note = ""
    if count > _MOST_BARS:
        order = sorted(order, key=lambda rank: -sum(means[rank][:3]))
        order = sorted([*order[: _MOST_BARS * 3 // 4], *order[-(_MOST_BARS // 4) :]])
        note = f"<p class=soft>Of {count} ranks, those whose own work takes longest, and the quickest.</p>"
    entries = []
    for rank in order:
        where = f" ({hosts[rank]})" if rank < len(hosts) and len(set(hosts)) > 1 else ""
        total = 1000 * sum(means[rank])
        entries.append(Bar(f"rank {rank}{where}", means[rank], f"{total:.4g} ms"))
    own = [sum(mean[:3]) for mean in means]
    slow = own.index(max(own))
    typical = statistics.median(own)
    lag = ""
    if count > 1 and typical > 0 and own[slow] > 1.1 * typical:
        lag = (f"<p>Rank {slow} takes longest for data, forward and backward: {1000 * own[slow]:.4g} ms an iteration, where "
               f"{1000 * typical:.4g} ms are usual. The others wait for it in exchange.</p>")  # fmt: skip
    head = "<h3>An iteration on each rank, in the mean</h3>"
    return f'<div class="card">{head}{note}{bars(entries, _NAMES)}{lag}</div>'


def _at(values: Sequence[float], rank: int) -> float:
    return values[rank] if rank < len(values) else 0.0


def _tree(run: Run) -> str:
    parents = run.facts.get("parents")
    if not isinstance(parents, list) or len(parents) < 2:
        return ""
    tree = Tree.from_parents(parents)
    hosts: list[str] = run.facts.get("hosts", [])
    text = f"{tree.size} ranks on {len(set(hosts)) or 1} host{'s' if len(set(hosts)) > 1 else ''}, depth {tree.depth}."
    ways = "Parameters go down, gradients come up" + ("; dashed: between hosts." if len(set(hosts)) > 1 else ".")
    drawing = draw_tree(tree, hosts, run.facts.get("threads", [])) if tree.size <= MOST_RANKS else ""
    return f"<figure><h3>Tree</h3><p>{text} <span class=soft>{ways}</span></p>{drawing}</figure>"


def machine(picture: str | None) -> str:
    """The picture of links and tree that `paratrain topology --svg` draws, as an image: its styles are its own."""
    if picture is None:
        return ""
    source = base64.b64encode(picture.encode()).decode()
    image = f'<img alt="links of the machine, and the tree" src="data:image/svg+xml;base64,{source}">'
    return _section("Machine", f'<div class="card">{image}</div>')


def layers(run: Run) -> str:
    """The share of each layer in the time of forward and backward, on the root."""
    if not run.layers.get("steps"):
        return ""
    forward: dict[str, float] = run.layers["forward_s"]
    backward: dict[str, float] = run.layers["backward_s"]
    types = {layer["name"]: layer["type"] for layer in run.facts.get("layers", [])}
    names = list(dict.fromkeys([*types, *forward, *backward]))
    names = [name for name in names if name in forward or name in backward]
    taken = {name: forward.get(name, 0.0) + backward.get(name, 0.0) for name in names}
    total = sum(taken.values()) or 1.0
    costly = sorted(names, key=lambda name: -taken[name])[:_MOST_BARS]
    shown = [name for name in names if name in costly]
    steps = run.layers["steps"]
    entries = [
        Bar(
            f"{name} ({types[name]})" if name in types else name,
            [forward.get(name, 0.0), backward.get(name, 0.0)],
            f"{1000 * taken[name] / steps:.3g} ms, {taken[name] / total:.1%}",
        )
        for name in shown
    ]
    rest = len(names) - len(shown)
    note = ""
    if rest:
        left = sum(taken[name] for name in names if name not in costly) / total
        note = (
            f"<p class=soft>The {len(shown)} layers that take longest; the other {rest} take {left:.1%} together.</p>"
        )
    title = f"<h3>Each layer on the root, in the mean of {steps} iterations</h3>"
    return _section("Layers", f'<div class="card">{title}{note}{bars(entries, ["forward", "backward"])}</div>')


def warnings(run: Run) -> str:
    """What the log warns of; the same words once."""
    if not run.warnings:
        return _section("Warnings", '<div class="card"><p class="soft">None.</p></div>')
    counts = Counter(run.warnings)
    items = [
        f"<li>{html.escape(text)}{f' <b>({count} times)</b>' if count > 1 else ''}</li>"
        for text, count in list(counts.items())[:_MOST_WARNINGS]
    ]
    rest = len(counts) - len(items)
    more = f"<p class=soft>And {rest} more.</p>" if rest > 0 else ""
    return _section("Warnings", f'<ul class="warnings">{"".join(items)}</ul>{more}')


def settings(run: Run) -> str:
    """What the run is: its command, its solver, and where it was read from."""
    facts = run.facts
    rows = [(title, _value(facts[name])) for name, title in _FACTS if name in facts]
    rows += [("log", line) for line in facts.get("head", [])]
    rows.append(("read from", ", ".join(map(str, run.paths))))
    solver = facts.get("solver", "").strip()
    text = f"<details open><summary>Solver</summary><pre>{html.escape(solver)}</pre></details>" if solver else ""
    pairs = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in rows)
    return _section("Settings", f'<div class="card"><dl>{pairs}</dl>{text}</div>')


def _curve(run: Run, label: str, series: Series, colour: int, *, is_test: bool = False) -> Curve:
    x, y = run.places(series, "iterations", is_test=is_test)
    return Curve(label, x, y, colour, is_test)


def _of_tests(run: Run, tested: dict[tuple[int, str], Series]) -> list[Curve]:
    return [_curve(run, _of_test(key), series, place % 6) for place, (key, series) in enumerate(tested.items())]


def _of_test(key: tuple[int, str]) -> str:
    return f"test: {key[1]}" if key[0] == 0 else f"test net {key[0]}: {key[1]}"


def _steps(shown: Sequence[int]) -> int:
    """The iterations between the first that is displayed and the last."""
    return max(1, shown[-1] - shown[0]) if shown else 1


def _each(seconds: Sequence[float], at: Sequence[int]) -> list[float]:
    """Seconds of an iteration, of those that were summed since the one displayed before."""
    counts = [1, *(later - earlier for earlier, later in pairwise(at))]
    return [value / max(1, count) for value, count in zip(seconds, counts, strict=True)]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10000 else str(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    kind = ["", *([' class="number"'] if numbers else [""]) * (len(heads) - 1)]
    head = (
        "".join(f"<th{kind[place]}>{html.escape(text)}</th>" for place, text in enumerate(heads)) if any(heads) else ""
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind[place]}>{html.escape(cell)}</td>" for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"


def _two_columns(parts: Sequence[str]) -> str:
    return f'<div class="grid2">{"".join(parts)}</div>' if any(parts) else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""

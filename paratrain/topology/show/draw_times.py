"""Predicted and simulated times as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paratrain.topology.costs.cost import Prediction
from paratrain.topology.costs.training_step import StepPrediction
from paratrain.topology.planning.simulation import Simulation
from paratrain.topology.show.style import PLAIN, Style, wrapped
from paratrain.topology.words import duration, plural, size, table

ORIGINS = {
    "default": "the defaults of topology/links.json",
    "mixed": "partly measured",
    "measured": "measured",
    "file": "measured before and saved",
    "given": "given",
}


def draw_predictions(predictions: Sequence[Prediction], style: Style = PLAIN) -> Iterator[str]:
    """The predicted times as a table, the best marked, and where their figures come from."""
    first = predictions[0]
    yield style.title(f"Predicted for {size(first.byte_count)}:")
    rows = [["method", "up", "down", "both"]]
    for one in predictions:
        rows.append(
            [with_chunks(one), *(duration(seconds) for seconds in (one.reduce_s, one.broadcast_s, one.total_s))]
        )
    marks = [" ", *("*" if one.best else " " for one in predictions)]
    for mark, line in zip(marks, table(rows, right=(1, 2, 3)), strict=True):
        yield style.good(f"  {mark} {line}") if mark == "*" else f"  {mark} {line}"
    origins = " and ".join(ORIGINS.get(origin, origin) for origin in dict.fromkeys(one.origin for one in predictions))
    shown = "* the fastest; " if "*" in marks else ""
    yield from wrapped(f"  {shown}times {style.about}{first.uncertainty:.0%}; figures of the links: {origins}")


def draw_comparison(columns: Sequence[Sequence[Prediction]], style: Style = PLAIN) -> Iterator[str]:
    """The times of whole exchanges by every method, a column for each size, the best of each column marked."""
    columns = sorted(columns, key=lambda column: column[0].byte_count)
    methods = list(dict.fromkeys(one.method for column in columns for one in column))
    rows = [["method", *(size(column[0].byte_count) for column in columns)]]
    for method in methods:
        cells = []
        for column in columns:
            one = next((one for one in column if one.method == method), None)
            mark = "" if one is None else " *" if one.best else "  "
            cells.append("-  " if one is None else duration(one.total_s) + mark)
        rows.append([method, *cells])
    rows[0] = [rows[0][0], *(title + "  " for title in rows[0][1:])]
    yield style.title("Predicted for one exchange, up and down:")
    for line in table(rows, right=range(1, len(columns) + 1)):
        yield f"    {line}"
    origins = " and ".join(ORIGINS.get(origin, origin) for origin in dict.fromkeys(c.origin for c in columns[0]))
    yield from wrapped(
        f"  * the fastest; times {style.about}{columns[0][0].uncertainty:.0%}; figures of the links: {origins}"
    )


def draw_steps(predictions: Sequence[StepPrediction], byte_count: int, style: Style = PLAIN) -> Iterator[str]:
    """The predicted times of the exchanges of a training step as a table, the first of the fastest marked."""
    yield style.title(f"Predicted for a training step with {size(byte_count)} of parameters and SGD, update included:")
    rows = [["--exchange", "sum", "update", "spread", "together"]]
    for one in predictions:
        times = (one.sum_s, one.update_s, one.spread_s, one.total_s)
        rows.append([one.exchange, *map(duration, times)])
    best = min(range(len(predictions)), key=lambda at: predictions[at].total_s)
    for at, line in enumerate(table(rows, right=range(1, 5))):
        yield style.good(f"  * {line}") if at == best + 1 else f"    {line}"


def draw_simulation(rows: Sequence[Simulation], style: Style = PLAIN) -> Iterator[str]:
    """Simulated times beside those of the formula."""
    yield style.title(f"Simulated for {size(rows[0].prediction.byte_count)}, transfer by transfer:")
    cells = [["method", "formula", "simulated", "difference"]]
    for row in rows:
        formula = row.prediction.total_s
        simulated, difference = f"not done: {row.transfer_count:,} transfers", ""
        if row.simulated is not None:
            simulated = duration(row.simulated.total_s)
            difference = f"{(row.simulated.total_s - formula) / formula:+.1%}"
        cells.append([with_chunks(row.prediction), duration(formula), simulated, difference])
    for line in table(cells, right=(1, 2, 3)):
        yield f"    {line}"
    count = sum(row.transfer_count for row in rows if row.simulated is not None)
    differs = any(row.simulated and abs(row.simulated.total_s / row.prediction.total_s - 1) > 0.005 for row in rows)
    reason = ""
    if differs:
        reason = (
            "; where they share, the formula charges an edge for all others of its step, however briefly they meet, and "
            "overlooks those of other steps"
        )
    yield from wrapped(f"  {plural(count, 'transfer')}, which share what they pass through{reason}")


def with_chunks(prediction: Prediction) -> str:
    """The method, and the count of chunks where the buffer is cut."""
    return prediction.method + (f", in {prediction.chunk_count} chunks" if prediction.chunk_count > 1 else "")

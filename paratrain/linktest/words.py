"""Findings about links as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paratrain.linktest.results import Limits, LinkResult, Verdict
from paratrain.topology.machine import MachineWarning
from paratrain.topology.words import TRANSPORTS, plural, rate, size, table

__all__ = ["bad_link", "rank_warnings", "result_lines"]

_WORDS = {
    Verdict.WRONG_DATA: ("T03", "moved wrong data"),
    Verdict.HANG: ("T04", "hung"),
    Verdict.SLOWER: ("T05", "is slower than the way through the host"),
    Verdict.ERROR: ("T17", "failed"),
}


def bad_link(verdict: Verdict) -> tuple[str, str]:
    """The code of the warning for a bad link, and in words what the link did."""
    return _WORDS[verdict]


def rank_warnings(results: Iterable[LinkResult], has_tree: bool, problem: str = "") -> list[MachineWarning]:
    """A warning for every bad link between ranks, and for the `problem` that ranks of a node cannot share memory.

    `has_tree` says whether there is a tree without the bad links.
    """
    warnings = []
    if problem:
        message = f"{problem}; the ranks of a node train by messages, and only these were tested"
        warnings.append(MachineWarning("T12", message))
    for result in results:
        if not result.is_usable:
            code, what = bad_link(result.verdict)
            then = "planned around" if has_tree else "no tree of the ranks does without such a link"
            way = "a message" if result.transport == "mpi" else "shared memory"
            message = f"rank {result.a} and rank {result.b}: {way} {what} ({result.detail}); {then}"
            warnings.append(MachineWarning(code, message, result.pair))
    return warnings


def result_lines(results: Sequence[LinkResult], limits: Limits, name: str) -> list[str]:
    """The table of what was found; `name` goes in front of the numbers of members ("GPU", "rank ")."""
    if not results:
        return [f"Tested no link: there is only one {name.strip()}"]
    rows = []
    for result in results:
        speed = "" if result.bytes_per_s is None else rate(result.bytes_per_s)
        latency = "" if result.latency_s is None else f"{result.latency_s * 1e6:.1f} us"
        transport = TRANSPORTS.get(result.transport, result.transport)
        rows.append([f"  {name}{result.a}-{name}{result.b}", transport, result.verdict.value, speed, latency])
    how = f"{size(limits.byte_count)} both ways, {limits.repeat_count} times, then all at once"
    return [f"Tested {plural(len(results), 'link')} ({how}):", *table(rows, right=(3, 4))]

"""Whole training steps: recorded as a CUDA graph, layer by layer, and once more, all with the same bits.

    python benchmarks/gpu_repeat.py [--nets lenet,...] [--precisions float32,...] [--steps 5] [--out FILE]

Compared are the losses of all steps and, after the last, all parameters and the solver's history.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gpu_findings import Findings
from gpu_nets import NETS, PRECISIONS, RECORDED, make_solver, recording_message

_BATCHES = {"lenet": 16, "cifar10_quick": 16, "googlenet": 4, "resnet50": 4, "caffenet": 4}


def run(name: str, precision: str, steps: int, *, recorded: bool) -> tuple[dict[str, Any], str]:
    """Train some steps from the same start; return the values that must agree, and what was said about recording."""
    with recording_message() as said:
        solver = make_solver(name, precision, _BATCHES[name], NETS[name][1])
        if not recorded:
            solver.net.recorded_pass = None
        losses = []
        for _ in range(steps):
            solver.step(1)
            losses.append(np.float32(solver.loss))
        found = {"losses": np.array(losses), "parameters": np.array(solver.net.parameters.data.host())}
        found |= {f"history {index}": np.array(one.host()) for index, one in enumerate(solver.flat_update.history)}
        solver.close()
    return found, "; ".join(said) or "nothing was said"


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The first thing whose bits differ; empty if none does."""
    for key, values in one.items():
        if values.tobytes() != other[key].tobytes():
            wrong = values.view(np.uint32) != other[key].view(np.uint32)
            return f"{key}: {int(wrong.sum())} of {values.size} differ, first {int(np.argmax(wrong))}"
    return ""


def check(findings: Findings, name: str, precision: str, steps: int) -> None:
    """One net in one precision."""
    graph, said = run(name, precision, steps, recorded=True)
    findings.check(f"{name}, {precision}: recorded", said.startswith(RECORDED), found=said)
    finite = bool(np.isfinite(graph["losses"]).all()) and bool(np.isfinite(graph["parameters"]).all())
    findings.check(
        f"{name}, {precision}: finite", finite, found=f"losses {graph['losses'][0]:g} to {graph['losses'][-1]:g}"
    )
    for what, recorded in (("graph and layer by layer", False), ("two runs", True)):
        again, _ = run(name, precision, steps, recorded=recorded)
        found = difference(graph, again)
        findings.check(f"{name}, {precision}: {what}", not found, asked="the same bits", found=found or "the same bits")
    gc.collect()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="lenet,cifar10_quick,googlenet,resnet50")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    both = [
        f"{name}, {precision}" for name in arguments.nets.split(",") for precision in arguments.precisions.split(",")
    ]
    for what in findings.each(both):
        with findings.trying(what):
            name, precision = what.split(", ")
            check(findings, name, precision, arguments.steps)
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

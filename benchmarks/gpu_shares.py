"""Where the time of a training step on the GPU goes: by layers and types of layers, by CUDA's events.

    python benchmarks/gpu_shares.py [--net resnet50] [--batch 128] [--precisions tf32,bfloat16] [--out FILE]

The net runs layer by layer, with an event before and after each pass of each; times are medians over steps. Where a layer is so
small that giving it to the GPU takes longer than running it, its figure is the former. What a ReLU, BatchNorm or Scale does that
is computed together with the layer before counts as that layer's. TFLOP/s are of layers that are products of matrices, GB/s the
bytes of bottoms and tops, each counted once a pass, over the time of forward: the least that has to be moved.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_findings import Findings
from gpu_nets import NETS, make_solver

_MOST_LAYERS = 25


def measure(name: str, precision: str, batch: int, steps: int) -> dict[str, Any]:
    """Milliseconds of all layers' forward and backward passes, of the update, and of the whole step."""
    from paratrain import gpu

    solver: Any = make_solver(name, precision, batch, NETS[name][1], plans_memory=True)
    net, backend = solver.net, solver.net.context.backend
    net.recorded_pass = None
    solver.step(3)
    cuda, marks = gpu.library().cuda, list[tuple[Any, Any, Any]]()

    def timed(key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            begin, end = cuda.Event(), cuda.Event()
            begin.record(backend.stream)
            try:
                return function(*arguments, **named)
            finally:
                end.record(backend.stream)
                marks.append((key, begin, end))

        return run

    for index, layer in enumerate(net.layers):
        for method in ("forward", "backward"):
            setattr(layer, method, timed((index, method), getattr(layer, method)))
    solver.flat_update.update = timed("update", solver.flat_update.update)
    step = timed("step", lambda: solver.step(1))
    times: dict[Any, list[float]] = defaultdict(list)
    for _ in range(steps):
        marks.clear()
        step()
        backend.synchronize()
        sums: dict[Any, float] = defaultdict(float)
        for key, begin, end in marks:
            sums[key] += cuda.get_elapsed_time(begin, end)
        for key, milliseconds in sums.items():
            times[key].append(milliseconds)
    found = {key: statistics.median(values) for key, values in times.items()}
    rows = [_row(net, index, found, precision) for index in range(len(net.layers))]
    solver.close()
    return {"step_ms": found["step"], "update_ms": found.get("update", 0.0), "layers": rows}


def _row(net: Any, index: int, found: dict[Any, float], precision: str) -> dict[str, Any]:
    from paratrain.launch.compare import _operations

    layer = net.layers[index]
    forward, backward = (found.get((index, method), 0.0) for method in ("forward", "backward"))
    row = {"layer": layer.name, "type": layer.type, "forward_ms": forward, "backward_ms": backward}
    operations = _operations(net, index)
    item_bytes = 2 if precision in ("bfloat16", "float16") else 4
    values = sum(blob.count for blob in (*net.bottoms[index], *net.tops[index]))
    if forward > 0 and operations[0]:
        row["forward_tflops"] = operations[0] / forward / 1e9
    if backward > 0 and operations[1]:
        row["backward_tflops"] = operations[1] / backward / 1e9
    if forward > 0:
        row["forward_gb_per_s"] = values * item_bytes / forward / 1e6
    return row


def tables(found: dict[str, Any]) -> dict[str, list[str]]:
    """The time by types, and the layers that take the most."""
    types: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in found["layers"]:
        entry = types[row["type"]]
        entry[0], entry[1], entry[2] = entry[0] + 1, entry[1] + row["forward_ms"], entry[2] + row["backward_ms"]
    step_ms, spent = found["step_ms"], sum(entry[1] + entry[2] for entry in types.values())
    by_type = ["| type | layers | forward ms | backward ms | share |", "|---|---|---|---|---|"]
    for name, (count, forward, backward) in sorted(types.items(), key=lambda item: -item[1][1] - item[1][2]):
        share = (forward + backward) / step_ms if step_ms else 0.0
        by_type.append(f"| {name} | {count:.0f} | {forward:.3f} | {backward:.3f} | {share:.1%} |")
    by_type.append(f"| update | | {found['update_ms']:.3f} | | |")
    by_type.append(f"| outside layers and update | | {step_ms - spent - found['update_ms']:.3f} | | |")
    slowest = sorted(found["layers"], key=lambda row: -row["forward_ms"] - row["backward_ms"])[:_MOST_LAYERS]
    by_layer = [
        "| layer | type | forward ms | TFLOP/s | GB/s | backward ms | TFLOP/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in slowest:
        cells = [
            f"{row[key]:.1f}" if key in row else "" for key in ("forward_tflops", "forward_gb_per_s", "backward_tflops")
        ]
        by_layer.append(
            f"| {row['layer']} | {row['type']} | {row['forward_ms']:.3f} | {cells[0]} | {cells[1]} | {row['backward_ms']:.3f} | "
            f"{cells[2]} |"
        )
    return {"by types": by_type, "the slowest layers": by_layer}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet50", choices=tuple(NETS))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--precisions", default="tf32,bfloat16")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings, shown = Findings(arguments.out), dict[str, list[str]]()
    batch = arguments.batch or NETS[arguments.net][0]
    for precision in arguments.precisions.split(","):
        what = f"{arguments.net}, {batch}, {precision}"
        with findings.trying(what):
            found = measure(arguments.net, precision, batch, arguments.steps)
            findings.note(precision, found)
            made = tables(found)
            shown |= {f"{what}, {title}": table for title, table in made.items()}
            findings.note("tables", shown)
            print("\n".join(line for table in made.values() for line in ("", *table)))
            findings.check(what, found["step_ms"] > 0, found=f"{found['step_ms']:.3f} ms layer by layer")
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

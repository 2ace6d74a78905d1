"""Time every layer type forward and backward, beside PyTorch's counterpart at the same sizes in the same run.

    python benchmarks/layers.py --peer-python python                 # all of benchmarks/layer_cases.py
    python benchmarks/layers.py --only ROIPooling --only LRN --rounds 1 --seconds 0.1

The two sides take turns (A B A B ...), each turn in a process of its own with one thread; a case's time is the median of
its turns' medians. Both sides get the gradients by all bottoms of numbers and by all parameters; where the counterpart
gives as many values as the layer does, they compute the same. The table has the worst ratio first. ``--peer-python`` names
a Python that has torch; without it only paratrain is timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layer_cases import CASES, LEFT_OUT, Case
from machine import REPOSITORY, describe

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_layers.py"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# What one turn of one side measured of a case: forward ms, backward ms, values in the tops.
Figures = tuple[float, float, int]
# Values of bottoms that have gradients.
NUMBERS = ("normal", "positive", "rows")


def bottom_values(shape: Sequence[int], kind: str, random: Any) -> Any:
    """Return the values that layer_cases.py names."""
    import numpy as np

    name, _, argument = kind.partition(" ")
    if name == "mask":
        side, (height, width) = int(argument), shape[2:]
        rows = random.integers(0, side, shape) + np.arange(height)[:, None] * side
        return rows * width * side + random.integers(0, side, shape) + np.arange(width) * side
    if name == "regions":
        corners = np.sort(random.random((shape[0], 2, 2)), axis=1) * [800, 600]
        return np.concatenate([random.integers(0, 2, (shape[0], 1)), corners.reshape(-1, 4)], axis=1)
    if name == "rows":
        drawn = random.random(shape) + 0.1
        return drawn / drawn.sum(axis=1, keepdims=True)
    makers = {
        "normal": lambda: random.normal(size=shape),
        "positive": lambda: random.random(shape) * 0.9 + 0.1,
        "labels": lambda: random.integers(0, int(argument), shape),
        "bits": lambda: np.arange(math.prod(shape)).reshape(shape) % 2,
        "ones": lambda: np.ones(shape),
    }
    return makers[name]()


def time_layer(case: Case, backend_name: str, seconds: float) -> Figures:
    """Time one layer in this process."""
    import numpy as np
    from google.protobuf import text_format

    from paratrain.backends import create_backend
    from paratrain.blob import Blob
    from paratrain.layers import LayerContext, create_layer
    from paratrain.proto import TRAIN, LayerParameter

    backend = create_backend(backend_name)
    parameter = text_format.Parse(f'name: "layer" type: "{case.type}" {case.fields}', LayerParameter())
    layer = create_layer(parameter, LayerContext(backend=backend, phase=TRAIN))
    random = np.random.default_rng(1)
    bottoms = []
    for shape, kind in case.bottoms:
        blob = Blob(shape)
        blob.data[...] = bottom_values(shape, kind, random)
        bottoms.append(blob)
    tops = [
        Blob() for _ in range(case.top_count or (len(bottoms) if layer.equal_bottom_top_count else layer.top_range[0]))
    ]
    layer.set_up(bottoms, tops)
    for top in tops:
        top.diff[...] = 1
    propagate = [kind in NUMBERS and index not in case.fixed for index, (_, kind) in enumerate(case.bottoms)]
    times: list[tuple[float, float]] = []
    end: float | None = None
    while end is None or len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        layer.forward(bottoms, tops)
        backend.synchronize()
        between = time.perf_counter()
        if case.backward:
            layer.backward(tops, propagate, bottoms)
            backend.synchronize()
        times.append((between - begin, time.perf_counter() - between))
        if end is None:  # the first run warms up
            end = time.perf_counter() + seconds
    forward, backward = (statistics.median(part) * 1e3 for part in zip(*times[1:], strict=True))
    return forward, backward, sum(top.count for top in tops)


def run(command: list[str], cases: list[Case]) -> dict[str, Figures]:
    """Let another process time the cases; it prints a line of JSON for each."""
    environment = os.environ | ONE_THREAD
    environment["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), environment.get("PYTHONPATH", "")])
    text = json.dumps([asdict(case) | {"name": case.name} for case in cases])
    done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return {
        name: (forward, backward, count) for name, forward, backward, count in map(json.loads, done.stdout.splitlines())
    }


def median_times(turns: list[dict[str, Figures]], case: Case) -> list[float]:
    """Return the case's forward and backward ms."""
    return [statistics.median(turn[case.name][part] for turn in turns) for part in (0, 1)]


def row(case: Case, own: list[dict[str, Figures]], peer: list[dict[str, Figures]]) -> tuple[float, str]:
    """Return the ratio of the times, 0 where there is no counterpart, and the case's line of the table."""
    shapes = ", ".join("x".join(map(str, shape)) for shape, _ in case.bottoms)
    sides = [median_times(own, case)]
    ratio, note = 0.0, ""
    if peer and case.name in peer[0]:
        sides.append(median_times(peer, case))
        ratio = sum(sides[0]) / sum(sides[1])
        same = own[0][case.name][2] == peer[0][case.name][2]
        note = f"{ratio:.2f}{'' if same else ' (other outputs)'}"
    cells = [
        text for forward, backward in sides for text in (f"{forward:.2f}", f"{backward:.2f}" if case.backward else "")
    ]
    cells += [""] * (4 - len(cells)) if peer else []
    return ratio, f"| {' | '.join([case.name, shapes, *cells, *([note] if peer else [])])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="only cases whose name starts with this; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=0.5, help="for which a case runs in one turn")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--peer-python", help="a Python that has torch")
    parser.add_argument("--save", help="also write the table to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        for fields in json.load(sys.stdin):
            name = fields.pop("name")
            print(json.dumps([name, *time_layer(Case(**fields), options.backend, options.seconds)]), flush=True)
        return

    cases = [case for case in CASES if not options.only or case.name.startswith(tuple(options.only))]
    if not cases:
        parser.error(f"no case starts with {' or '.join(options.only)}")
    worker = [sys.executable, __file__, "--worker", "--backend", options.backend, "--seconds", str(options.seconds)]
    own, peer = [], []
    for _ in range(options.rounds):
        own.append(run(worker, cases))
        if options.peer_python:
            peer.append(run([options.peer_python, str(PEER), str(options.seconds)], cases))

    from paratrain.layers import LAYERS

    lines = [f"# Layers on the backend {options.backend}, one thread, float32", "", describe(), ""]
    if peer:
        lines += [
            "| layer | bottoms | forward ms | backward ms | PyTorch forward | backward | ratio |",
            f"|{'---|' * 7}",
        ]
    else:
        lines += ["| layer | bottoms | forward ms | backward ms |", f"|{'---|' * 4}"]
    table = [row(case, own, peer) for case in cases]
    lines += [line for _, line in sorted(table, key=lambda entry: -entry[0])]
    if peer:
        lines += ["", "The ratio is paratrain's forward and backward time by PyTorch's; less than 1 is faster."]
    missing = sorted(set(LAYERS.names()) - {case.type for case in CASES} - LEFT_OUT)
    if missing:
        lines += ["", f"Types without a case: {', '.join(missing)}."]
    text = "\n".join(lines)
    print(text)
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Show where the time of an update on the CPU goes: in each pass over a piece, and in waiting for memory.

    python benchmarks/update_passes.py --save benchmarks/results/update_passes.md

An update by oneDNN is two or three passes over each piece of the arrays, since a kernel of oneDNN writes one result. They are
timed in an update of 60 million values, where the first pass over a piece brings most of its arrays from memory, and over one
piece that stays in the core's cache, as often as there are pieces: what is left there is computing and calling. The
least of several updates is taken. One thread.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from machine import describe

COUNT, TURNS = 60_965_224, 8
PASSES = {
    "SGD": ("history and gradients", "parameters"),
    "Adam": ("first history", "second history", "parameters: a root and a division"),
}


def time_passes(name: str, count: int, turns: int) -> list[float]:
    """Return the milliseconds of each pass, for COUNT values in arrays of so many."""
    import numpy as np

    from paratrain.backends import create_backend
    from paratrain.backends.base import AdamRule, MomentumRule
    from paratrain.backends.onednn import OneDnnBackend
    from paratrain.backends.onednn.updates import OneDnnUpdate

    backend = create_backend("onednn")
    assert isinstance(backend, OneDnnBackend)
    update = OneDnnUpdate(backend.engine)
    rule = MomentumRule(0.9) if name == "SGD" else AdamRule(0.9, 0.999, 1.0, 1e-8)
    data, diff, *history = (np.full(count, 0.01, np.float32) for _ in range(2 + (1 if name == "SGD" else 2)))
    update.begin(rule, data, [diff], history)
    execute, library = backend.library.execute, backend.library
    spent = [0.0] * len(PASSES[name])
    calls = 0

    def timed(*call: int) -> int:
        nonlocal calls
        begin = time.perf_counter()
        status: int = execute(*call)
        spent[calls % len(spent)] += time.perf_counter() - begin
        calls += 1
        return status

    library.execute = timed
    best = [float("inf")] * len(spent)
    try:
        for _ in range(turns):
            spent[:] = [0.0] * len(spent)
            for _ in range(COUNT // count):
                update.run(0, count, rate=1e-6, decay=5e-4, scale=1.0)
            best = [min(pair) for pair in zip(best, spent, strict=True)]
    finally:
        library.execute = execute
    return [seconds * 1e3 for seconds in best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", help="also write the tables to this file")
    options = parser.parse_args()
    lines = [f"# The passes of an update of {COUNT} parameters, 1 thread", "", describe()]
    for name, passes in PASSES.items():
        lines += ["", f"## {name}", "", "| pass | ms | ms in the cache |", "|---|---|---|"]
        whole, cached = time_passes(name, COUNT, TURNS), time_passes(name, 1 << 16, TURNS)
        lines += [f"| {what} | {a:.1f} | {b:.1f} |" for what, a, b in zip(passes, whole, cached, strict=True)]
        lines.append(f"| together | {sum(whole):.1f} | {sum(cached):.1f} |")
    print("\n".join(lines))
    if options.save:
        Path(options.save).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    # Before anything loads a library that starts threads.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    main()

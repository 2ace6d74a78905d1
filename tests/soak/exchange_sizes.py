"""Three million values through every exchange, for 1 to 9, 13 and 16 ranks as threads: the sum, and the same bytes everywhere.

The tests do the same at smaller sizes; this takes a minute. Whole numbers are summed, so that every order gives the sum; the
average divides it by the ranks, which rounds once. Each exchange runs twice and must give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from tests.unit.comm.exchanges import MESSAGES, SHARED, TWO_LEVELS, make_exchange, run_step

COUNT = 3_000_001
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16)
NODES = ([0] * 4 + [1] * 4, [0] * 8 + [1] * 8, [0] * 5 + [1] * 4 + [2] * 4)


def run(kind: str, size: int, nodes: list[int] | None, pattern: np.ndarray) -> tuple[bool, str]:
    """Whether all ranks have the average, and the sum of their bytes, which is one for all."""

    def rank(communicator: Communicator) -> tuple[bool, str]:
        exchange = make_exchange(kind, communicator, COUNT, step=256 * 1024)
        result = run_step(exchange, (communicator.rank + 1) * pattern)
        is_right = bool(np.allclose(result, (size + 1) / 2 * pattern, rtol=3e-7, atol=0))
        return is_right, hashlib.sha256(result.tobytes()).hexdigest()

    found = run_threads(size, rank, nodes)
    return all(is_right for is_right, _ in found) and len({digest for _, digest in found}) == 1, found[0][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    pattern = (np.arange(COUNT) % 1000).astype(np.float32)
    layouts = [(f"{size}", size, None, (*MESSAGES, *SHARED)) for size in SIZES]
    layouts += [(" + ".join(str(nodes.count(n)) for n in set(nodes)), len(nodes), nodes, TWO_LEVELS) for nodes in NODES]
    lines = [
        "# 3,000,001 values through every exchange",
        "",
        describe(),
        "",
        "| ranks | exchanges | seconds | result |",
    ]
    lines.append("|---|---|---|---|")
    is_good = True
    for label, size, nodes, kinds in layouts:
        begin = time.perf_counter()
        bad = []
        for kind in kinds:
            (is_right, digest), (is_right_again, digest_again) = (run(kind, size, nodes, pattern) for _ in range(2))
            if not (is_right and is_right_again and digest == digest_again):
                bad.append(kind)
        is_good &= not bad
        result = f"wrong: {', '.join(bad)}" if bad else "the average, the same bytes on all ranks and in both runs"
        lines.append(f"| {label} | {', '.join(kinds)} | {time.perf_counter() - begin:.1f} | {result} |")
        print(lines[-1], flush=True)
    if options.save:
        Path(options.save).write_text("\n".join(lines) + "\n")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()

"""The tests of GPUs with the simulated GPU's checks, and with threads and blocks in other orders: no result may depend on one.

See tests/simulated_gpu/README.md, "Orders and checks". With checks each test file runs twice: as it is, and with three blocks for
each kernel that takes any number of them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import describe
from tests.paths import REPOSITORY

GROUPS = {
    "layers": ["tests/unit/layers/cupy"],
    "kernels, updates, recorded passes": [
        "tests/unit/backends/cupy",
        "--ignore=tests/unit/backends/cupy/test_kernels_compile.py",
    ],
    "nets and training": ["tests/integration/test_golden_nets_on_gpu.py", "tests/integration/test_gpu_training.py"],
}
CHECKS = {"SIMULATED_GPU_CHECKS": "1"}
FEW_BLOCKS = ["-p", "tests.soak.few_blocks", "--ignore=tests/unit/backends/cupy/test_large_arrays.py"]


def ways(seeds: int) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Environment and options of pytest for each row."""
    found = {
        "checks": (CHECKS, []),
        "checks, few blocks": (CHECKS, FEW_BLOCKS),
        "upwards": ({"SIMULATED_GPU_ORDER": "upwards"}, []),
        "downwards": ({"SIMULATED_GPU_ORDER": "downwards"}, []),
    }
    for seed in range(1, seeds + 1):
        found[f"shuffled, seed {seed}"] = ({"SIMULATED_GPU_ORDER": "shuffled", "SIMULATED_GPU_SEED": str(seed)}, [])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many shuffled orders (default: %(default)s)")
    parser.add_argument("--only", default="", help="only the ways whose names contain this")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    lines = ["# Kernels on the simulated GPU: checks, and other orders of threads and blocks", "", describe(), ""]
    lines += ["| tests of | way | seconds | result |", "|---|---|---|---|"]
    is_good = True
    for name, files in GROUPS.items():
        for way, (environment, more) in ways(options.seeds).items():
            if options.only not in way:
                continue
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=600", *more, *files],
                env={**os.environ, **environment},
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                check=False,
            )
            is_good &= done.returncode == 0
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            counts = re.sub(r" in .*", "", (done.stdout.strip().splitlines() or ["nothing"])[-1])
            result = "; ".join([counts, *failed])
            lines.append(f"| {name} | {way} | {time.perf_counter() - begin:.0f} | {result} |")
            print(lines[-1], flush=True)
    if options.save:
        Path(options.save).write_text("\n".join(lines) + "\n")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()

"""The tests of GPUs on simulated ones whose streams take their time, under several seeds: no work may rely on being quick.

Each seed is another order of the streams, as far as events leave it open: see tests/simulated_gpu/simulated/late.py.
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
    "the way of the data": ["tests/unit/layers/cupy/test_data.py", "tests/unit/layers/cupy/test_device_ring.py"],
    "exchanges between GPUs": ["tests/parallel/test_gpu_exchanges.py", "tests/unit/data_parallel/test_gpus.py"],
    "training": [
        "tests/integration/test_gpu_training.py",
        "tests/unit/pycaffe/test_gpu_mode.py",
        "tests/unit/net/test_device_errors.py",
    ],
    "updates, recorded passes, faults, snapshots": [
        "tests/unit/backends/cupy",
        "--ignore=tests/unit/backends/cupy/test_kernels_compile.py",
    ],
    "layers": ["tests/unit/layers/cupy"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1, help="the first of them (default: %(default)s)")
    parser.add_argument("--save", help="also write the table to this file")
    options = parser.parse_args()
    lines = ["# Simulated GPUs with late streams", "", describe(), "", "| tests of | seed | seconds | result |"]
    lines.append("|---|---|---|---|")
    is_good = True
    for name, files in GROUPS.items():
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            begin = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
                env={**os.environ, "SIMULATED_GPU_LATE": "1", "SIMULATED_GPU_SEED": str(seed)},
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                check=False,
            )
            is_good &= done.returncode == 0
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            counts = re.sub(r" in .*", "", (done.stdout.strip().splitlines() or ["nothing"])[-1])
            result = "; ".join([counts, *failed])
            lines.append(f"| {name} | {seed} | {time.perf_counter() - begin:.0f} | {result} |")
            print(lines[-1], flush=True)
    if options.save:
        Path(options.save).write_text("\n".join(lines) + "\n")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()

"""`paratrain train` on the GPU: in all precisions to the same accuracy, and with ranks that share it to the same losses.

    python benchmarks/gpu_training.py accuracy [--iterations 1000] [--out FILE]
    python benchmarks/gpu_training.py ranks [--iterations 20] [--sizes 2,4] [--out FILE]

``accuracy`` trains LeNet on 8,000 digits of MNIST in each precision; the mean of the last three tests on 2,000 others has to be
within half a point of float32's. ``ranks`` trains it with an effective batch of 64: by one rank, and by several on one GPU that
exchange through its memory (CUDA IPC), as a tree and in shards. Their losses agree with those of one rank to 2e-3; all ranks
hold the same bits, which ``--verify-every`` compares. All record their steps, and nothing is amiss up to their end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import prepare
from gpu_findings import Findings
from gpu_nets import PRECISIONS, RECORDED
from gpu_process import last_words, show_stacks, why_ended

_HALF_A_POINT = 0.005
_TOLERANCE = 2e-3
_PART = 0.4
"""Of the section's time, for one run: one that hangs leaves some to others."""
_LATE = 124
_BAD_SIGNS = (
    "Exception ignored",
    "Traceback (most recent call last)",
    "cudaError",
    "CUDA_ERROR",
    "could not be recorded",
)


def train(folder: Path, *words: str, ranks: int = 1) -> tuple[list[dict[str, Any]], str, float]:
    """Train as a user does; return the records of ``--metrics``, the log, and the seconds. Raises RuntimeError."""
    command = [
        sys.executable,
        "-m",
        "paratrain",
        "train",
        "solver.prototxt",
        "-gpu",
        "0",
        "--metrics",
        "metrics.jsonl",
        *words,
    ]
    environment = dict(os.environ)
    if ranks > 1:
        from paratrain.launch.self_launch import find_mpirun, mpirun_arguments, mpirun_family, own_core_count

        mpirun = find_mpirun(os.environ)
        command = mpirun_arguments(mpirun, mpirun_family(mpirun), ranks, command, os.geteuid() == 0, own_core_count())
        limit = environment.get("CUPY_GPU_MEMORY_LIMIT", "")
        if limit.isdecimal():
            environment["CUPY_GPU_MEMORY_LIMIT"] = str(int(limit) // ranks)
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    begin = time.perf_counter()
    limit_s = _PART * float(os.environ.get("PARATRAIN_SECTION_S", "600"))
    code, log = _run(command, folder, environment, limit_s)
    if code:
        print(log, flush=True)
        said = [line for line in log.splitlines() if line.startswith("paratrain: ")]
        ended = f"did not end within {limit_s:.0f} s" if code == _LATE else why_ended(code)
        raise RuntimeError(said[-1] if said else f"{ended}: {last_words(log)}")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return records, log, time.perf_counter() - begin


def _run(command: list[str], folder: Path, environment: dict[str, str], limit_s: float) -> tuple[int, str]:
    """Exit code, ``_LATE`` for one that was ended since it took too long, and all that was written to stderr."""
    with (folder / "said.txt").open("w+", encoding="utf-8", errors="replace") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = _LATE
            show_stacks(process)
            process.terminate()  # mpirun ends what is left of its ranks
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        said.seek(0)
        return code, said.read()


def sign_of_trouble(log: str) -> str:
    """The first line in the log of a run that ended well that nobody should see, as of threads or objects that outlive CUDA when
    Python ends, or of a step that was not recorded; empty where there is none.
    """
    lines = log.splitlines()
    bad = next((line for line in lines if any(sign in line for sign in _BAD_SIGNS)), "")
    return bad or ("" if RECORDED in log else "no step was recorded")


def check_accuracy(findings: Findings, iterations: int, precisions: list[str]) -> None:
    """LeNet in each precision."""
    found: dict[str, float] = {}
    for precision in precisions:
        what = f"LeNet on digits in {precision}, {iterations} iterations"
        with findings.trying(what), tempfile.TemporaryDirectory() as place:
            prepare(Path(place), 1, iterations)
            records, log, seconds = train(Path(place), "--precision", precision)
            assert "(CPU)" not in log and "Use GPU 0" in log, "the log does not say that the GPU computes"
            _check_log(findings, what, log)
            tests = [record["outputs"]["accuracy"] for record in records if "test_net" in record]
            findings.note(precision, {"tests": tests, "seconds": seconds})
            found[precision] = float(np.mean(tests[-3:]))
            away = abs(found[precision] - found.get("float32", found[precision]))
            text = f"{found[precision]:.2%} ({seconds:.1f} s)"
            findings.check(
                what, away <= _HALF_A_POINT and found[precision] > 0.5, asked="half a point from float32", found=text
            )


def _check_log(findings: Findings, what: str, log: str) -> None:
    sign = sign_of_trouble(log)
    findings.check(f"{what}: log", not sign, asked="nothing amiss", found=sign[:200] or "nothing amiss")


def check_ranks(findings: Findings, iterations: int, sizes: list[int]) -> None:
    """LeNet by one rank and by several that share the GPU."""
    with tempfile.TemporaryDirectory() as place:
        expected = _losses(Path(place), 1, iterations)[0]
        findings.note("one rank", expected)
        for ranks in sizes:
            for exchange in ("tree", "sharded"):
                what = f"{ranks} ranks, {exchange}"
                with findings.trying(what):
                    words = ("--exchange", exchange, "--verify-every", "5")
                    losses, log = _losses(Path(place), ranks, iterations, *words)
                    way = next((line for line in log.splitlines() if "Exchange: " in line), "").split("] ", 1)[-1]
                    findings.check(f"{what}: way", "CUDA IPC" in way, asked="through the GPU's memory", found=way)
                    _check_log(findings, what, log)
                    away = (
                        float(np.max(np.abs(np.divide(losses, expected) - 1)))
                        if len(losses) == len(expected)
                        else np.inf
                    )
                    findings.check(f"{what}: losses", away <= _TOLERANCE, asked=f"{_TOLERANCE:g}", found=f"{away:.1e}")


def _losses(folder: Path, ranks: int, iterations: int, *words: str) -> tuple[list[float], str]:
    if not (folder / "mnist_train_lmdb").exists():
        prepare(folder, 1, iterations)
    net = (folder / "net.prototxt").read_text() if ranks == 1 else (folder / "whole.prototxt").read_text()
    (folder / "whole.prototxt").write_text(net)
    (folder / "net.prototxt").write_text(net.replace("batch_size: 64", f"batch_size: {64 // ranks}"))
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 display: 1 '
        f'max_iter: {iterations} snapshot_prefix: "lenet" snapshot_after_train: false random_seed: 1\n'
    )
    records, log, _ = train(folder, *words, ranks=ranks)
    return [record["loss"] for record in records if "iteration" in record and "loss" in record], log


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "ranks"))
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="of accuracy, divided by commas")
    parser.add_argument("--sizes", default="2,4", help="numbers of ranks, divided by commas")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    with findings.trying(f"training ({arguments.what})"):
        if arguments.what == "accuracy":
            check_accuracy(findings, arguments.iterations or 1000, arguments.precisions.split(","))
        else:
            check_ranks(findings, arguments.iterations or 20, [int(size) for size in arguments.sizes.split(",")])
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

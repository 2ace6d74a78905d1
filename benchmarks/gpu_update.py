"""Time the update of 60 million parameters on the GPU, beside the memory bandwidth that copies reach.

    python benchmarks/gpu_update.py [--types SGD,Adam] [--copied 1000000000] [--peer-python python] [--out FILE]

The parameters are CaffeNet's (60,965,224 in 16 blobs, biases with rates of their own). SGD with momentum reads gradient, values
and history and writes two of them back: 20 bytes for each; Adam moves 28. The bandwidth is that of the better of two ways to
copy within the GPU, cudaMemcpyAsync and a kernel of CuPy's: bytes read and written. Asked: 90% of it. PyTorch's fused
optimizers, where PyTorch is installed, are timed in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_findings import Findings
from machine import REPOSITORY
from update import SHAPES, make_solver

BYTES = {"SGD": 20, "Nesterov": 20, "AdaGrad": 20, "RMSProp": 20, "AdaDelta": 28, "Adam": 28, "AdamW": 28}
"""Moved for each parameter: gradient and values and history read, values and history written."""
_GOAL = 0.9
PEER = REPOSITORY / "benchmarks" / "peers" / "torch_update.py"


def event_ms(work: Callable[[], object], stream: Any, count: int, rounds: int = 12) -> float:
    """Median milliseconds of ``work`` by the GPU's own clock, in rounds of ``count``; two more rounds come first."""
    from paratrain import gpu

    cuda, times = gpu.library().cuda, []
    for _ in range(rounds + 2):
        begin, end = cuda.Event(), cuda.Event()
        begin.record(stream)
        for _ in range(count):
            work()
        end.record(stream)
        end.synchronize()
        times.append(cuda.get_elapsed_time(begin, end) / count)
    return float(statistics.median(times[2:]))


def copy_bandwidth(backend: Any, byte_count: int) -> dict[str, float]:
    """Bytes read and written a second, of two ways to copy."""
    cupy = backend.xp
    source = cupy.arange(byte_count // 4, dtype=cupy.float32)  # not all the same: equal bits may be copied at less cost
    target = cupy.empty_like(source)
    found = {
        "cudaMemcpyAsync": event_ms(lambda: backend.copy(source, target), backend.stream, 4),
        "kernel": event_ms(lambda: cupy.multiply(source, source, out=target), backend.stream, 4),
    }
    return {way: 2 * source.nbytes / max(ms, 1e-6) * 1e3 for way, ms in found.items()}


def check(findings: Findings, types: list[str], copied: int, blobs: int, peer_python: str) -> None:
    """A row for the bandwidth, and one for each type of solver and its peer."""
    best = 0.0
    for kind in types:
        solver, gradient = make_solver(kind, "cupy", SHAPES[:blobs])
        backend, parameters = solver.net.context.backend, solver.net.parameters
        assert backend.name == "cupy", "the GPU cannot be used"
        if not best:
            found = copy_bandwidth(backend, copied)
            findings.note("copy_bytes_per_s", found)
            best = max(found.values())
            findings.goal("copies within the GPU", None, found=f"{best / 1e9:,.0f} GB/s read and written")
        parameters.diff.mutable_host()[...] = gradient

        def update(solver: Any = solver) -> None:
            solver.update_parameters()
            solver.iter += 1

        ms = event_ms(update, backend.stream, 10)
        rate = BYTES[kind] * parameters.count / max(ms, 1e-6) * 1e3
        findings.note(kind, {"ms": ms, "bytes_per_s": rate})
        text = f"{ms:.3f} ms, {rate / 1e9:,.0f} GB/s, {rate / best:.0%}"
        what = f"{kind} of {parameters.count / 1e6:.3g} M parameters"
        findings.goal(what, rate >= _GOAL * best, asked=f"{_GOAL:.0%} of that bandwidth", found=text)
        solver.close()
        del solver, parameters
        backend.xp.get_default_memory_pool().free_all_blocks()
        if peer_python and kind in ("SGD", "Adam"):
            findings.goal(f"{kind}: PyTorch, fused", None, found=_peer(peer_python, kind, SHAPES[:blobs]))


def _peer(python: str, kind: str, shapes: list[tuple[int, ...]]) -> str:
    command = [python, str(PEER), kind, "fused", "--device", "cuda", "--iters", "10", "--shapes", repr(shapes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "did not end within 60 s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed"])[-1]
    milliseconds, version = done.stdout.split()
    return f"{float(milliseconds):.3f} ms ({version})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="SGD,Adam", help="types of solvers, divided by commas")
    parser.add_argument("--copied", type=int, default=1_000_000_000, help="bytes of the arrays that are copied")
    parser.add_argument("--blobs", type=int, default=len(SHAPES), help="of CaffeNet's parameters only so many")
    parser.add_argument("--peer-python", default="", help="a Python that has torch")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    with findings.trying("updates"):
        check(findings, arguments.types.split(","), arguments.copied, arguments.blobs, arguments.peer_python)
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

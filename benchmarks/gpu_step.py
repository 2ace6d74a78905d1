"""Time whole training steps of a net on the GPU, beside PyTorch on the same net and batch in the same run.

    python benchmarks/gpu_step.py lenet [--batch 64] [--precisions float32,tf32,bfloat16] [--peers eager,...] [--out FILE]

A step is: clear the gradients, forward, backward, SGD with momentum and weight decay. Random data lie on the GPU, on both sides.
Steps are timed in blocks of some tenths of a second, with the GPU idle before and after each, paratrain's by one call of
``Solver.step`` as in training; counted is the median of the blocks, after a warm-up. Each side runs in a process of its own, one
after the other, in as many rounds as --rounds says; the median of the rounds counts, of an even number the slower of the middle
two. Peers: ``eager`` (channels last), ``eager-plain`` (channels second), and ``compile``, ``reduce-overhead`` and
``max-autotune`` (modes of torch.compile, channels last); all of them with cuDNN's benchmark mode and fused SGD. The quickest is
what paratrain is compared with.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_findings import Findings
from gpu_nets import NETS, make_solver, net_file, recording_message
from gpu_process import last_words, show_stacks, why_ended
from machine import REPOSITORY

PEER = REPOSITORY / "benchmarks" / "peers" / "torch_net.py"
PEERS = {
    "eager": ["--channels-last"],
    "eager-plain": [],
    "compile": ["--channels-last", "--compile", "default"],
    "reduce-overhead": ["--channels-last", "--compile", "reduce-overhead"],
    "max-autotune": ["--channels-last", "--compile", "max-autotune"],
}


def time_blocks(run: Callable[[int], object], wait: Callable[[], object], seconds: float) -> dict[str, float]:
    """Median, least and most milliseconds of a step, in blocks that fill ``seconds`` after a warm-up of half as long.

    ``run`` is called with the number of steps of a block.
    """

    def block(count: int) -> float:
        wait()
        begin = time.perf_counter()
        run(count)
        wait()
        return (time.perf_counter() - begin) / count

    run(4)  # memory is taken, kernels are chosen, the step is recorded
    one, stop = block(1), time.perf_counter() + seconds / 2
    while time.perf_counter() < stop:
        one = block(max(1, int(0.02 / one)))
    count, times = max(1, int(seconds / 10 / one)), list[float]()
    stop = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < stop:
        times.append(block(count))
    times.sort()
    return {
        "ms": times[len(times) // 2] * 1e3,
        "least_ms": times[0] * 1e3,
        "most_ms": times[-1] * 1e3,
        "blocks": len(times),
    }


def time_own(name: str, precision: str, batch: int, seconds: float) -> dict[str, Any]:
    """Time paratrain in this process."""
    from paratrain import gpu

    pool = gpu.library().get_default_memory_pool()
    gc.collect()  # a net of the precision before may still hold memory
    pool.free_all_blocks()
    with recording_message() as said:
        solver = make_solver(name, precision, batch, NETS[name][1])
        found: dict[str, Any] = dict(time_blocks(solver.step, solver.net.context.backend.synchronize, seconds))
    found |= {"gigabytes": pool.total_bytes() / 1e9, "recorded": "; ".join(said)}
    solver.close()
    return found


def own_side(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Run paratrain's side in a process of its own; return what it found for each precision, or what went wrong."""
    words = ["--batch", str(options.batch), "--precisions", options.precisions, "--seconds", str(options.seconds)]
    return _results([sys.executable, __file__, options.net, "--worker", *words], options)


def peer_side(options: argparse.Namespace, peer: str) -> dict[str, dict[str, Any]]:
    """The same of PyTorch."""
    words = ["--batch", str(options.batch), "--shape", NETS[options.net][1], "--dtype", options.precisions]
    words += ["--device", "cuda", "--seconds", str(options.seconds), *PEERS[peer]]
    limit = os.environ.get("CUPY_GPU_MEMORY_LIMIT", "")
    if limit.isdecimal():
        words += ["--memory-limit", limit]
    return _results([options.peer_python, str(PEER), net_file(options.net), *words], options)


def _results(command: list[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, stdout=printed, stderr=said)
        try:
            reason = why_ended(process.wait(options.limit))
        except subprocess.TimeoutExpired:
            reason = f"did not end within {options.limit:.0f} s"
            show_stacks(process)
            process.kill()
            process.wait()
        printed.seek(0)
        said.seek(0)
        lines, errors = printed.read().splitlines(), said.read()
    print(errors, file=sys.stderr, end="", flush=True)
    problem = f"{reason}: {last_words(errors)}" if reason else "exit code 0"
    for line in lines:
        if line.startswith("{"):
            values = json.loads(line)
            found[values.pop("precision")] = values
    for precision in options.precisions.split(","):
        found.setdefault(precision, {"problem": problem})
    return found


def together(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of a side's turns: that of the median turn, with the least and most of all; a problem only if all have one."""
    timed = sorted((turn for turn in turns if "ms" in turn), key=lambda turn: turn["ms"])
    if not timed:
        return turns[-1]
    found = dict(timed[len(timed) // 2])
    found["least_ms"] = min(turn["least_ms"] for turn in timed)
    found["most_ms"] = max(turn["most_ms"] for turn in timed)
    return {**found, "turns_ms": [turn.get("ms") for turn in turns]}


def compare(findings: Findings, options: argparse.Namespace) -> None:
    """Time all sides, and add a row for each precision and each peer."""
    goal, wanted = NETS[options.net][2], [peer for peer in options.peers.split(",") if peer]
    turns: dict[str, list[dict[str, dict[str, Any]]]] = {}
    sides: dict[str, dict[str, dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for name in ("paratrain", *(f"PyTorch {peer}" for peer in wanted)):
            found = own_side(options) if name == "paratrain" else peer_side(options, name.partition(" ")[2])
            turns.setdefault(name, []).append(found)
            sides[name] = {precision: together([turn[precision] for turn in turns[name]]) for precision in found}
            _keep(findings, options, sides)
    for precision, found in sides["paratrain"].items():
        what = f"{options.net}, {options.batch}, {precision}"
        if "ms" not in found:
            findings.check(what, False, asked="a time", found=found["problem"])
            continue
        per_s = 1e3 / found["ms"]
        text = f"{found['ms']:.3f} ms, {per_s:,.1f} steps/s, {per_s * options.batch:,.0f} img/s, {found['gigabytes']:.2f} GB"
        findings.check(what, True, found=text)
        others = {name: side[precision] for name, side in sides.items() if name != "paratrain"}
        for name, other in others.items():
            findings.goal(f"{what}: {name}", None, found=_peer_text(other, options.batch))
        times = {name: other["ms"] for name, other in others.items() if "ms" in other}
        if times:
            best = min(times, key=lambda name: times[name])
            ratio = times[best] / found["ms"]
            findings.goal(f"{what}: beside {best}", ratio >= goal, asked=f"{goal:g} times", found=f"{ratio:.2f} times")


def _peer_text(found: dict[str, Any], batch: int) -> str:
    if "ms" not in found:
        return str(found["problem"])
    return f"{found['ms']:.3f} ms, {1e3 / found['ms'] * batch:,.0f} img/s, {found['gigabytes']:.2f} GB"


def _keep(findings: Findings, options: argparse.Namespace, sides: dict[str, dict[str, dict[str, Any]]]) -> None:
    findings.note("steps", {"net": options.net, "batch": options.batch, "sides": sides})


def work(options: argparse.Namespace) -> None:
    """Paratrain's side: print a line of JSON for each precision."""
    for precision in options.precisions.split(","):
        try:
            found = time_own(options.net, precision, options.batch, options.seconds)
        except Exception as error:  # a full GPU in one precision leaves the others
            traceback.print_exc()
            found = {"problem": f"{type(error).__name__}: {error}"}
        print(json.dumps({"precision": precision, **found}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=tuple(NETS))
    parser.add_argument("--batch", type=int, help="images of a step (default: that of the table)")
    parser.add_argument("--precisions", default="float32,tf32,bfloat16")
    parser.add_argument("--peers", default="eager", help=f"of {', '.join(PEERS)}; none without PyTorch")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each is timed")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each side")
    parser.add_argument(
        "--limit", type=float, help="seconds after which a side is given up (default: its part of the section's)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch = options.batch or NETS[options.net][0]
    side_count = 1 + len([peer for peer in options.peers.split(",") if peer])
    options.limit = options.limit or 0.95 * float(os.environ.get("PARATRAIN_SECTION_S", "600")) / side_count
    options.limit /= options.rounds
    if options.worker:
        work(options)
        return 0
    findings = Findings(options.out)
    with findings.trying(options.net):
        compare(findings, options)
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

"""Time bfloat16 beside float32 on the CPU: whole training steps, the types of layers in them, and single convolutions.

    python benchmarks/bfloat16.py --save benchmarks/results/bfloat16.md

Both nets of a pair live in one process and take turns (A B A B ...), so that whatever else runs on the machine slows both:
the ratios mean something, the milliseconds less. Printed are medians, and of kernels the best. What a step is, is described in
``step.py``. A layer's time holds the conversions that it asks for: weights, and blobs that come in float32. Of single
convolutions only the kernels are timed, on arrays that lie as they want them. The last lines time products of registers, where
a C compiler is at hand: no kernel can be faster than these.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before numpy and oneDNN are loaded
    os.environ[variable] = "1"

PRECISIONS = ("float32", "bfloat16")
CONVOLUTIONS = {
    "7x7 stride 2, 3 > 64 at 224": (8, 3, 224, 64, 7, 2, 3),
    "3x3, 64 > 192 at 56": (8, 64, 56, 192, 3, 1, 1),
    "1x1, 64 > 256 at 56": (8, 64, 56, 256, 1, 1, 0),
    "3x3, 128 > 128 at 28": (8, 128, 28, 128, 3, 1, 1),
    "1x1, 512 > 1024 at 14": (8, 512, 14, 1024, 1, 1, 0),
    "3x3, 512 > 512 at 7": (8, 512, 7, 512, 3, 1, 1),
    "5x5, 20 > 50 at 12": (64, 20, 12, 50, 5, 1, 0),
}
"""Batch, channels, size, outputs, kernel, stride, padding: of ResNet-50, GoogLeNet and LeNet."""
REGISTERS = """
#include <immintrin.h>
#include <stdio.h>
#include <time.h>
#define ALL(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)
#define DECLARE(i) __m512 a##i = _mm512_setzero_ps();
#define FLOAT32(i) __asm__ volatile("vfmadd231ps %1,%2,%0" : "+v"(a##i) : "v"(x), "v"(y));
#define BFLOAT16(i) __asm__ volatile("vdpbf16ps %1,%2,%0" : "+v"(a##i) : "v"(x), "v"(y));
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}
int main(void) {
  ALL(DECLARE)
  __m512 x = _mm512_setzero_ps(), y = x;
  double best[2] = {0, 0};
  const long count = 4000000;
  for (int round = 0; round < 20; round++) {
    double begin = now();
    for (long i = 0; i < count; i++) { ALL(FLOAT32) }
    double middle = now();
    for (long i = 0; i < count; i++) { ALL(BFLOAT16) }
    double end = now();
    double rates[2] = {count * 12.0 * 32 / (middle - begin), count * 12.0 * 64 / (end - middle)};
    for (int k = 0; k < 2; k++) if (rates[k] > best[k]) best[k] = rates[k];
  }
  printf("%f %f\\n", best[0], best[1]);
}
"""


def least(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The fewest milliseconds of each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: min(found) for name, found in times.items()}


class Timed:
    """A solver whose layers are timed by type and pass."""

    def __init__(self, name: str, precision: str) -> None:
        from cpu_steps import NETS
        from fed_net import fed_solver_parameter, feed
        from machine import REPOSITORY

        from paratrain.backends import create_backend
        from paratrain.solvers import NetOptions, create_solver

        batch, shape, _ = NETS[name]
        net_path = REPOSITORY / "tests" / "golden" / "nets" / f"{name}.prototxt"
        parameter = fed_solver_parameter(net_path, batch, [int(axis) for axis in shape.split("x")])
        backend = create_backend("onednn", precision)
        self.solver = create_solver(parameter, backend=backend, seed=1, net_options=NetOptions(plans_memory=True))
        feed(self.solver.net, seed=1)
        self.solver.step(2)
        self.spent: dict[str, float] = defaultdict(float)
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.steps: list[float] = []
        for layer in self.solver.net.layers:
            for method in ("forward", "backward"):
                setattr(layer, method, self._timed(f"{layer.type}, {method}", getattr(layer, method)))

    def step(self) -> None:
        self.spent.clear()
        begin = time.perf_counter()
        self.solver.step(1)
        self.steps.append((time.perf_counter() - begin) * 1e3)
        for part, milliseconds in self.spent.items():
            self.parts[part].append(milliseconds)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.spent[part] += (time.perf_counter() - begin) * 1e3

        return run


def row(name: str, times: dict[str, list[float]]) -> str:
    """Medians, and the median of the ratios of turns that follow each other."""
    first, second = times["float32"], times["bfloat16"]
    ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
    return f"| {name} | {statistics.median(first):.1f} | {statistics.median(second):.1f} | {ratio:.2f} |"


def compare_net(name: str, rounds: int) -> Iterator[str]:
    from cpu_steps import NETS

    sides = {precision: Timed(name, precision) for precision in PRECISIONS}
    for _ in range(rounds):
        for side in sides.values():
            side.step()
    yield from ("", f"## {name}, batch {NETS[name][0]}", "")
    yield from ("| | float32 ms | bfloat16 ms | float32 / bfloat16 |", "|---|---|---|---|")
    yield row("a step", {precision: side.steps for precision, side in sides.items()})
    middle = {part: statistics.median(found) for part, found in sides["float32"].parts.items()}
    for part in sorted(middle, key=lambda part: -middle[part]):
        if middle[part] > 0.01 * statistics.median(sides["float32"].steps):
            yield row(part, {precision: side.parts[part] for precision, side in sides.items()})


def compare_convolutions(rounds: int) -> Iterator[str]:
    """The kernels of single convolutions, in GFLOP/s."""
    yield from ("", "## Kernels of convolutions, GFLOP/s, float32 > bfloat16", "")
    yield from (
        "| | forward | gradient of weights | gradient of bottom | kernels in bfloat16 |",
        "|---|---|---|---|---|",
    )
    for name, sizes in CONVOLUTIONS.items():
        passes: dict[str, dict[str, Callable[[], object]]] = defaultdict(dict)
        kernels: list[str] = []
        for precision in PRECISIONS:
            for part, kernel, run in convolution_passes(precision, *sizes):
                passes[part][precision] = run
                kernels += [kernel] if precision == "bfloat16" else []
        batch, channels, size, outputs, kernel_size, stride, pad = sizes
        out = (size + 2 * pad - kernel_size) // stride + 1
        operations = 2 * batch * outputs * out * out * channels * kernel_size**2
        cells = []
        for runs in passes.values():
            found = least(runs, 3 * rounds)
            cells.append(" > ".join(f"{operations / found[precision] / 1e6:.0f}" for precision in PRECISIONS))
        yield f"| {name} | {' | '.join(cells)} | {', '.join(dict.fromkeys(kernels))} |"


def convolution_passes(
    precision: str, batch: int, channels: int, size: int, outputs: int, kernel: int, stride: int, pad: int
) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """(name, kernel, what runs it) of each pass, on arrays that lie as the primitives want them."""
    from paratrain.backends import create_backend
    from paratrain.backends.base import ConvolutionGeometry
    from paratrain.backends.onednn.convolution import OneDnnConvolution

    backend: Any = create_backend("onednn", precision)
    geometry = ConvolutionGeometry(
        batch, channels, (size, size), outputs, (kernel, kernel), (stride, stride), (pad, pad), (1, 1)
    )
    plain = backend.arranger.plain((batch, channels, size, size))
    made: Any = OneDnnConvolution(backend.arranger, geometry, True, plain, backend.arranger.dtype)
    made.build_backward(weights=True, data=True)
    forward, _ = made._build_forward(None)
    owner = made._in_float32 or made
    for name, primitive in (
        ("forward", forward), ("weights", owner._backward_weights[0]), ("bottom", made._backward_data[0])
    ):  # fmt: skip
        arrays = list(buffers(primitive))
        primitive.run(*arrays)
        yield name, primitive.implementation, lambda primitive=primitive, arrays=arrays: primitive.run(*arrays)  # type: ignore[misc]


def buffers(primitive: Any) -> Iterator[Any]:
    """Zeros for each argument: kernels take as long for them as for other numbers."""
    from paratrain.backends.onednn.primitive import aligned

    count = len(primitive._sizes) - (primitive._scratch_index >= 0)
    for size_bytes in primitive._sizes[:count]:
        yield aligned(size_bytes)


def measure_registers() -> Iterator[str]:
    """The most that the processor's instructions reach."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "registers.c")
        source.write_text(REGISTERS)
        program = str(Path(folder, "registers"))
        made = subprocess.run([compiler, "-O2", "-march=native", str(source), "-o", program], capture_output=True)
        if made.returncode:
            return
        rates = [float(word) / 1e9 for word in subprocess.run([program], capture_output=True, text=True).stdout.split()]
    if len(rates) == 2:
        yield from ("", "## The processor's own products, in registers", "")
        found = f"float32 (`vfmadd231ps`) {rates[0]:.0f} GFLOP/s, bfloat16 (`vdpbf16ps`) {rates[1]:.0f}"
        yield f"{found}: {rates[1] / rates[0]:.2f} times as fast."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="googlenet,resnet50,lenet")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each side")
    parser.add_argument("--save", help="also write the tables to this file")
    options = parser.parse_args()
    from machine import describe

    from paratrain.backends import create_backend

    backend: Any = create_backend("onednn", "bfloat16")
    head = [
        "# bfloat16 on the CPU, one thread",
        "",
        describe(),
        f"- {backend.description}",
        f"- load average at the start: {os.getloadavg()[0]:.1f}",
    ]
    text = "\n".join(head)
    print(text, flush=True)
    sections = [compare_net(name, options.rounds) for name in options.nets.split(",") if name]
    for lines in (*sections, compare_convolutions(options.rounds), measure_registers()):
        for line in lines:
            print(line, flush=True)
            text += f"\n{line}"
    if options.save:
        Path(options.save).write_text(text + "\n")


if __name__ == "__main__":
    main()

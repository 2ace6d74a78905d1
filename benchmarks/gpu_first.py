"""What everything else on a GPU stands on, part by part, and one step of each net as it is timed.

    python benchmarks/gpu_first.py arrays [--out FILE]
    python benchmarks/gpu_first.py steps [--nets lenet,...] [--precisions float32,...] [--small] [--out FILE]

``arrays``: CuPy, copies, pinned memory, events, a kernel that CuPy makes, one of ours, a product, a recorded graph, cuDNN's
start; each is tried by itself. ``steps``: every net at the batch at which it is timed (``--small``: 2) takes a step in each
precision; its loss and the norm of its gradient have to be near those in float32. That shows kernels and plans that are wrong
only at real sizes.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gpu_findings import Findings
from gpu_nets import NETS, PRECISIONS, make_solver

_SCALE = 128.0
_LOSS, _NORM = 0.01, 0.05
"""How far loss and norm may be from those in float32: 16 bits, and dropout masks that another order of values deals otherwise."""


def check_arrays(findings: Findings) -> None:
    """Each part in turn; where the backend cannot be made, nothing else can be tried."""
    from paratrain import gpu
    from paratrain.backends import create_backend

    made: list[Any] = []
    with findings.trying("the backend"):
        made.append(create_backend("cupy", "float32"))
        is_gpu = made[0].name == "cupy"
        findings.check("the backend", is_gpu, found=made[0].description if is_gpu else str(gpu.problem()))
    if not made or made[0].name != "cupy":
        return
    backend: Any = made[0]
    cupy, values = backend.xp, np.random.default_rng(1).standard_normal(1 << 20, np.float32)
    with findings.trying("copies"):
        array = cupy.empty(values.size, cupy.float32)
        pinned, back = gpu.empty_pinned(values.size, np.float32), gpu.empty_pinned(values.size, np.float32)
        pinned[...] = values
        backend.device.upload(pinned, array)
        other = backend.device.zeros(values.size, np.float32)
        backend.copy(array, other)
        backend.device.download(other, back)
        findings.check("copies", np.array_equal(back, values), asked="the same bits", found=f"{values.size:,} values")
    with findings.trying("a kernel of CuPy's"):
        total = float(cupy.asnumpy((cupy.asarray(values) * 2).sum()))
        _near(findings, "a kernel of CuPy's", total, 2 * float(values.sum(dtype=np.float64)), 1e-2)
    with findings.trying("a product"):
        a, b = (
            cupy.asarray(values[: 1 << 16].reshape(256, 256)),
            cupy.asarray(values[1 << 16 : 1 << 17].reshape(256, 256)),
        )
        out = cupy.zeros((256, 256), cupy.float32)
        backend.matrix_product(a, b, out)
        expected = cupy.asnumpy(a).astype(np.float64) @ cupy.asnumpy(b).astype(np.float64)
        away = float(np.abs(cupy.asnumpy(out) - expected).max() / np.abs(expected).max())
        findings.check("a product", away < 1e-5, asked="1e-5", found=f"{away:.1e}")
    source, target = cupy.asarray(values), cupy.zeros(values.size, cupy.float32)

    def rectify() -> None:
        arguments = source, target, np.float32(0)
        backend.forms.kernels("activation", np.float32).launch("relu_forward", values.size, *arguments)

    for what in ("a kernel of ours", "a recorded graph"):
        with findings.trying(what):
            run = rectify
            if what == "a recorded graph":
                graph = backend.record(rectify)
                assert graph is not None, "nothing was recorded"
                run = graph.replay
            target.fill(0)
            run()
            backend.synchronize()
            is_same = np.array_equal(cupy.asnumpy(target), np.maximum(values, 0))
            findings.check(what, is_same, asked="the same bits", found="the same bits" if is_same else "others")
    with findings.trying("events"):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(backend.stream)
        rectify()
        end.record(backend.stream)
        end.synchronize()
        found = cupy.cuda.get_elapsed_time(begin, end)
        findings.check("events", 0 <= found < 1000, found=f"{found:.3f} ms")
    with findings.trying("cuDNN"):
        from paratrain.backends.cupy.cudnn import library

        problem = library.problem()
        is_there = problem is None and backend.cudnn is not None
        findings.check("cuDNN", is_there, found=problem or (library.version() if is_there else "it does not start"))


def _near(findings: Findings, what: str, found: float, expected: float, limit: float) -> None:
    away = abs(found - expected) / max(abs(expected), 1.0)
    findings.check(what, away <= limit, asked=f"{expected:.6g}, to {limit:g}", found=f"{found:.6g}")


def check_steps(findings: Findings, names: list[str], precisions: list[str], *, is_small: bool) -> None:
    """A step of each net in each precision, layer by layer, and what it leaves."""
    for name in findings.each(names):
        batch, shape, _ = NETS[name]
        batch = 2 if is_small else batch
        expected: tuple[float, float] | None = None
        for precision in precisions:
            what = f"{name}, {batch}, {precision}"
            with findings.trying(what):
                loss, norm = _step(name, precision, batch, shape)
                expected = expected or (loss, norm)
                text = f"loss {loss:.5g}, gradient {norm:.5g}"
                ratios = [abs(one / other - 1) for one, other in zip((loss, norm), expected, strict=True)]
                is_right = bool(np.isfinite([loss, norm]).all()) and ratios[0] <= _LOSS and ratios[1] <= _NORM
                asked = f"near {precisions[0]}: {_LOSS:.0%}, {_NORM:.0%}"
                findings.check(what, is_right, asked=asked, found=text)
            gc.collect()


def _step(name: str, precision: str, batch: int, shape: str) -> tuple[float, float]:
    """Loss and norm of the gradient of a pass over the net."""
    from paratrain.solvers.loss_scale import LossScale

    solver: Any = make_solver(name, precision, batch, shape)
    scale = (
        _SCALE if precision == "float16" else 1.0
    )  # the scale of a run follows its gradients, and begins too large for some
    try:
        solver.use_loss_scale(LossScale(scale))
        net = solver.net
        net.recorded_pass = None
        net.clear_param_diffs()
        loss = float(net.forward_from_to())
        net.backward_from_to()
        diff = np.array(net.parameters.diff.host())
        return loss, float(np.sqrt(np.sum(np.square(diff, dtype=np.float64)))) / scale
    finally:
        solver.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("arrays", "steps"))
    parser.add_argument("--nets", default=",".join(NETS), help="divided by commas")
    parser.add_argument(
        "--precisions", default=",".join(PRECISIONS), help="the first is what the others are compared with"
    )
    parser.add_argument("--small", action="store_true", help="batches of 2")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    if arguments.what == "arrays":
        check_arrays(findings)
    else:
        names, precisions = arguments.nets.split(","), arguments.precisions.split(",")
        check_steps(findings, names, precisions, is_small=arguments.small)
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

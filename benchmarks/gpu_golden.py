"""Layers, nets and training runs of BVLC Caffe, on the GPU.

    python benchmarks/gpu_golden.py layers|nets|solvers [--precision float32] [--names a,b] [--out FILE]

The recorded figures are those of ``tests/golden``. In float32 layers have to agree to 1e-4, nets to 1e-3, and the first 20
losses of each run to 1e-3. In other precisions layers agree to 1e-2 of the largest value of an array, small nets and the
losses of some runs to 1e-2.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_findings import Findings
from gpu_nets import PRECISIONS

STEP_COUNT = 20
NETS = ("lenet", "cifar10_quick", "caffenet", "googlenet", "resnet50", "resnet50_deploy")
NARROW_NETS = ("lenet", "cifar10_quick")
NARROW_RUNS = ("adam", "sgd", "sgd_iter_size")
"""In 16 bits: gradients of deep nets of two images are farther off, and so are the first losses of some runs."""


def check_layers(findings: Findings, names: list[str], *, is_narrow: bool) -> None:
    """All golden layers."""
    from tests.unit.layers.golden import golden_names, run_golden_case

    limits = {"rtol": 1e-2, "atol": 1e-3, "of_largest": 1e-2} if is_narrow else {"rtol": 1e-4, "atol": 1e-5}
    for name in findings.each(names or golden_names("")):
        asked = "1e-2" if is_narrow else "1e-4"
        with findings.trying(name, asked=asked):
            run_golden_case(name, backend="cupy", **limits)
            findings.check(name, True, asked=asked, found="agrees")


def check_nets(findings: Findings, names: list[str], *, is_narrow: bool) -> None:
    """The golden networks: all blobs and gradients, by their norms."""
    from tests.integration.golden_nets import compare_net, open_nets, recorded_figures

    tolerance = 1e-2 if is_narrow else 1e-3
    for name in findings.each(names or (NARROW_NETS if is_narrow else NETS)):
        with findings.trying(name, asked=f"{tolerance:g}"), tempfile.TemporaryDirectory() as folder:
            recorded, (train, test) = recorded_figures(name), open_nets(name, Path(folder))
            of_layer = 5e-3 if is_narrow else 0.0
            for net, phase in ((test, "TEST"), (train, "TRAIN")):
                assert net.context.backend.name == "cupy", f"{net.context.backend.name} computes"
                compare_net(net, recorded[phase], tolerance, tolerance=tolerance, of_layer=of_layer)
                net.close()
            findings.check(name, True, asked=f"{tolerance:g}", found="agrees")


def check_solvers(findings: Findings, names: list[str], *, is_narrow: bool) -> None:
    """The recorded training runs: the losses of their first steps."""
    import numpy as np
    from accuracy import write_databases

    from tests.paths import GOLDEN

    every = sorted(path.name.split(".")[0] for path in (GOLDEN / "solvers").glob("*.solver.prototxt"))
    runs = names or (NARROW_RUNS if is_narrow else every)
    tolerance = 1e-2 if is_narrow else 1e-3
    started_in = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for path in (GOLDEN / "solvers").iterdir():
            shutil.copy(path, folder)
        write_databases(Path(folder))
        os.chdir(folder)
        try:
            for name in findings.each(runs):
                with findings.trying(name, asked=f"{tolerance:g}"):
                    expected = np.load(f"{name}.npz")["loss"][:STEP_COUNT]
                    losses = _follow(name, len(expected))
                    worst = float(np.max(np.abs(np.divide(losses, expected) - 1)))
                    findings.check(name, worst <= tolerance, asked=f"{tolerance:g}", found=f"{worst:.1e}")
                    findings.note(name, [float(loss) for loss in losses])
        finally:
            os.chdir(started_in)


def _follow(name: str, step_count: int) -> list[float]:
    import paratrain as caffe

    solver: Any = caffe.get_solver(f"{name}.solver.prototxt")
    try:
        assert solver.net.context.backend.name == "cupy", f"{solver.net.context.backend.name} computes"
        solver.net.copy_from("init_bn.caffemodel" if "bn" in name else "init.caffemodel")
        losses = []
        for _ in range(step_count):
            solver.step(1)
            losses.append(float(solver.net.blobs["loss"].data))
        return losses
    finally:
        solver.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("layers", "nets", "solvers"))
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--names", help="only these, divided by commas")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    findings = Findings(arguments.out)
    os.environ["PARATRAIN_BACKEND"], os.environ["PARATRAIN_PRECISION"] = "cupy", arguments.precision
    from paratrain.backends import create_backend

    if create_backend().name != "cupy":  # it has warned and would compute on the CPU
        findings.check("the GPU", False, found="cannot be used")
        return findings.exit_code
    check = {"layers": check_layers, "nets": check_nets, "solvers": check_solvers}[arguments.what]
    names = arguments.names.split(",") if arguments.names else []
    check(findings, names, is_narrow=arguments.precision != "float32")
    return findings.exit_code


if __name__ == "__main__":
    sys.exit(main())

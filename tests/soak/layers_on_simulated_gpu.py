"""All tests of layers with the GPU's backend in the place of numpy's, on the simulated GPU.

    scripts/soak/layers_on_simulated_gpu [--save FILE] [pytest's options]

The tests say numpy, and mostly compute in float64: what runs is the shared array code, under CuPy's rules, and in float32 the
layers with kernels of their own. A layer that mixes arrays of the host and of the GPU, or calls what CuPy does not have, fails.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.paths import REPOSITORY, TESTS
from tests.simulated_gpu_path import install

LAYERS = TESTS / "unit" / "layers"
OTHERS = [LAYERS / "cupy", LAYERS / "onednn", LAYERS / "test_onednn_layers.py", LAYERS / "test_documentation.py"]
"""Tests of the layers of one backend, and of pages."""
HOLDS = "holds on to arrays of parameters across passes, and writes them"
LEARNING = ("Convolution", "Deconvolution", "InnerProduct", "Scale", "Bias", "PReLU", "PReLU in place", "Embed")
NOT_FOR_GPUS = {
    "test_norm_over_ranks.py::test_numeric_gradient_over_two_ranks": HOLDS,
    **{f"test_followed_in_place.py::test_gradients_hold[{name}]": HOLDS for name in LEARNING},
    "test_data_layers.py::test_tops_show_the_ring_without_a_copy_and_views_follow": "batches are copied to the GPU",
}
"""Left out, and why."""


class Substitute:
    """Makes `create_backend` give the GPU's backend to whoever wants numpy's, and counts what becomes of the tests."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.failed: list[str] = []

    def pytest_configure(self) -> None:
        install()
        backends: Any = importlib.import_module("paratrain.backends")
        base: Any = importlib.import_module("paratrain.backends.base")
        create = base.create_backend

        def substitute(name: str | None = None, precision: str | None = None, **options: Any) -> Any:
            return create("cupy" if name in (None, "numpy") else name, precision, **options)

        backends.create_backend = base.create_backend = substitute

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1
            if report.failed:
                self.failed.append(report.nodeid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, metavar="FILE", help="add a section with the result to this page")
    options, words = parser.parse_known_args()
    plugin = Substitute()
    begin = time.monotonic()
    ignored = [f"--ignore={path}" for path in OTHERS]
    ignored += [f"--deselect={(LAYERS / test).relative_to(REPOSITORY)}" for test in NOT_FOR_GPUS]
    pytest.main(["-q", "-p", "no:cacheprovider", "--tb=short", *ignored, *(words or [str(LAYERS)])], plugins=[plugin])
    lines = describe(plugin, time.monotonic() - begin)
    print("\n".join(lines))
    if options.save is not None:
        with options.save.open("a", encoding="utf-8") as page:
            page.write("\n" + "\n".join(lines) + "\n")
    return int(bool(plugin.failed))


def describe(plugin: Substitute, seconds: float) -> list[str]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(plugin.outcomes.items()))
    lines = [f"## {datetime.date.today()}, on top of commit {commit or 'unknown'}", "", f"{counted}; {seconds:.0f} s."]
    lines += ["", *(f"- failed: `{test}`" for test in plugin.failed)] if plugin.failed else []
    return lines


if __name__ == "__main__":
    sys.exit(main())

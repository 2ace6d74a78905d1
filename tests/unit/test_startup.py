"""What is loaded, and when: programs that start quickly load nothing that they do not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.integration.cli import ENVIRONMENT, write_solver

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
HEAVY = {"asyncio", "http.server", "multiprocessing.managers", "numpy.f2py", "numpy.testing", "sqlite3", "tkinter",
         "unittest", "xml.dom"}  # fmt: skip
"""Parts of Python and NumPy that take long to load."""
ELSEWHERE = {"paratrain.check", "paratrain.linktest", "paratrain.pycaffe", "paratrain.tools", "paratrain.topology.show",
             "paratrain.topology.sources", "paratrain.topology.text"}  # fmt: skip
"""Packages that training on one rank has no use for."""


def loaded_by(program: str, folder: Path) -> set[str]:
    """The modules that ``program`` has loaded when it ends, in a Python of its own."""
    code = f"import sys; before = set(sys.modules)\n{program}\nimport json; print(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def from_others(modules: set[str]) -> set[str]:
    """The names of libraries that are neither Python's nor our own."""
    roots = {name.split(".")[0] for name in modules}
    own = {"cython_runtime", "paratrain"}  # the first is part of every module that Cython made, such as some of NumPy
    return {name for name in roots - set(sys.stdlib_module_names) - own if not name.startswith("_")}


def test_the_package_alone(tmp_path: Path) -> None:
    modules = loaded_by("import paratrain", tmp_path)
    assert from_others(modules) == set()
    assert {name for name in modules if name.startswith("paratrain")} == {"paratrain"}


def test_the_names_of_pycaffe(tmp_path: Path) -> None:
    modules = loaded_by("import paratrain as caffe; caffe.Net", tmp_path)
    assert from_others(modules) == {"google", "numpy"}
    assert not modules & HEAVY
    assert not modules & {
        "paratrain.check",
        "paratrain.linktest",
        "paratrain.topology.sources",
        "paratrain.topology.text",
    }


def test_training_on_one_rank(tmp_path: Path) -> None:
    solver = write_solver(tmp_path, "max_iter: 1\nsnapshot_after_train: false\n", net=NET)
    modules = loaded_by(f"from paratrain.launch.cli import main\nassert main(['train', {solver!r}]) == 0", tmp_path)
    assert "paratrain.launch.train" in modules
    assert from_others(modules) == {"google", "numpy"}
    assert not modules & HEAVY
    assert not modules & ELSEWHERE

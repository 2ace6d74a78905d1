"""``--precision`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.cli import error, messages, paratrain_here, write_solver
from tests.optional import need_bfloat16

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 8 dim: 3 dim: 8 dim: 8 } shape { dim: 8 }
    data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 16 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_train_time_and_test_compute_in_bfloat16(tmp_path: Path) -> None:
    need_bfloat16()
    solver = write_solver(tmp_path, net=NET)
    for words in (
        ("train", solver, "--precision", "bfloat16"),
        ("time", "small.net.prototxt", "-iterations", "1", "--precision", "bfloat16"),
        (
            "test",
            "small.net.prototxt",
            "-iterations",
            "1",
            "-weights",
            "small_iter_4.caffemodel",
            "--precision",
            "bfloat16",
        ),
    ):
        done = paratrain_here(tmp_path, *words)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in messages(done) if line.startswith("Use CPU, ")]
        assert ", bfloat16. (" in line


@pytest.mark.parametrize("verb", ["train", "time"])
def test_precisions_of_gpus_are_refused(verb: str, tmp_path: Path) -> None:
    solver = write_solver(tmp_path, net=NET)
    file = solver if verb == "train" else "small.net.prototxt"
    message = error(paratrain_here(tmp_path, verb, file, "--backend", "onednn", "--precision", "tf32"))
    assert message.startswith("the backend onednn has no tf32; give --precision float32 or bfloat16")


def test_a_comparison_in_a_precision_is_one_of_the_backends_that_have_it(tmp_path: Path) -> None:
    need_bfloat16()
    write_solver(tmp_path, net=NET)
    words = ("time", "small.net.prototxt", "--compare", "--json", "-iterations", "1", "--precision", "bfloat16")
    done = paratrain_here(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "numpy" not in json.loads(done.stdout)["backends"]
    assert "The backend numpy is left out: it has no bfloat16" in done.stderr

"""``--loss-scale`` as a user gives it, over a stop and a resume."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cli import figures, messages, paratrain, paratrain_here, write_solver

# Errors of 60 times a loss weight of 1e33: 4096 is the largest power of two whose product with them float32 holds.
NET = """
layer { name: "data" type: "DummyData" top: "x" top: "y"
  dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 dim: 1 }
    data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 60 } } }
layer { name: "line" type: "InnerProduct" bottom: "x" top: "p" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" loss_weight: 1e33 }
"""


def test_a_scale_that_is_none(tmp_path: Path) -> None:
    done = paratrain_here(tmp_path, "train", write_solver(tmp_path), "--loss-scale", "-3")
    assert done.returncode != 0
    assert "the loss scale is -3; it must be a number above 0, or 'dynamic'" in done.stderr


def test_a_dynamic_scale_falls_and_is_found_again(tmp_path: Path) -> None:
    solver = write_solver(tmp_path, "base_lr: 1e-35\nmax_iter: 30\ndisplay: 1\n", net=NET)
    options = ("train", solver, "--loss-scale", "dynamic", "--set", "snapshot_after_train=true", "--metrics", "m.jsonl")
    done = paratrain(tmp_path, *options, "--iterations", "3")
    assert done.returncode == 0, done.stderr
    assert (
        "Iteration 0 is left out: a gradient of the loss times 65536 is not finite. The loss scale is 32768 from now on"
        in (messages(done))
    )
    # The loss is shown as it is, and stays where it is while steps are left out.
    losses = [line["loss"] for line in figures(tmp_path / "m.jsonl")]
    assert losses == [losses[0]] * 3
    assert abs(losses[0] / 1.8e36 - 1) < 1e-5
    state = json.loads((tmp_path / "small_iter_3.trainstate").read_text())
    assert state["policy"] == {"loss_scale": 8192.0, "loss_scale_good_steps": 0}
    done = paratrain(tmp_path, *options, "--resume", "auto")
    assert done.returncode == 0, done.stderr
    changes = [line for line in messages(done) if "The loss scale is" in line]
    assert changes == [
        "Iteration 3 is left out: a gradient of the loss times 8192 is not finite. The loss scale is 4096 from now on"
    ]
    assert figures(tmp_path / "m.jsonl")[-1]["loss"] < losses[0]

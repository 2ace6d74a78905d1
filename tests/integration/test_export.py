"""``paratrain export`` and ``convert_weights``: whole networks in onnxruntime, and weights out and back."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TEST, NetParameter, NetState, filter_net, read_binary, read_prototxt, upgrade_net
from paratrain.snapshot import load_weights, save_weights
from paratrain.tools.onnx import to_onnx, with_inputs
from tests.integration.cli import SMALL_NET, error, paratrain_here
from tests.paths import GOLDEN, REPOSITORY
from tests.unit.tools.onnx.running import compare, run_net, run_onnx

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

DEPLOY = """
name: "small"
input: "data" input_dim: 2 input_dim: 1 input_dim: 12 input_dim: 12
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool1" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def _fill(net: Net) -> None:
    """The weights that the recorded figures were computed with."""
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            random = _generator(f"{layer.name}/{index}")
            if layer.type == "BatchNorm" and index == 2:
                blob.data[...] = 1
            elif len(blob.shape) > 1:
                flat, factor = blob.data.reshape(-1), np.sqrt(2 / np.prod(blob.shape[1:]))
                for start in range(0, flat.size, 1 << 16):  # the same numbers as in one piece, in the cache
                    part = flat[start : start + (1 << 16)]
                    part[...] = random.normal(size=part.size) * factor
            else:
                blob.data[...] = random.uniform(0.1, 0.5, size=blob.shape)


@pytest.mark.parametrize(
    ("name", "scores", "prob"),
    [
        ("lenet", "ip2", "prob"),
        ("cifar10_quick", "ip2", "prob"),
        ("caffenet", "fc8", "prob"),
        ("googlenet", "loss3/classifier", "loss3/loss3_prob"),
        ("resnet50_deploy", "fc1000", "prob"),
    ],
)
def test_a_network_gives_the_same_in_onnxruntime(name: str, scores: str, prob: str) -> None:
    """The scores of Caffe's own inputs and weights: what paratrain computes to 1e-4, and the norm that Caffe recorded."""
    parameter = upgrade_net(read_prototxt(GOLDEN / "nets" / f"{name}.prototxt", NetParameter))
    recorded = json.loads((GOLDEN / "nets" / f"{name}.json").read_text())["TEST"]
    ready = with_inputs(filter_net(parameter, NetState(phase=TEST)), {})
    # Without memory: no filler has to make 61 million values that are overwritten.
    net = Net(ready, LayerContext(create_backend("numpy"), TEST, shapes_only=True))
    _fill(net)
    model = to_onnx(net, outputs=[scores, prob])
    inputs: dict[str, Any] = {
        blob: _generator(f"data/{blob}").normal(size=net.blobs[blob].shape).astype(np.float32) for blob in model.inputs
    }
    found = run_onnx(model.data, inputs)
    expected = run_net(net, inputs)
    largest = float(np.abs(expected[scores]).max())
    compare({scores: expected[scores] / largest}, {scores: found[scores] / largest})
    powers = np.exp(expected[scores] - expected[scores].max(axis=1, keepdims=True))
    compare({"prob": powers / powers.sum(axis=1, keepdims=True)}, {"prob": found[prob]})
    norm = float(np.sqrt(np.sum(found[scores].astype(np.float64) ** 2)))
    assert norm == pytest.approx(recorded["blob_l2"][scores], rel=1e-3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A deploy net, and weights for it."""
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    net = _open(tmp_path)
    random = np.random.default_rng(0)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = random.normal(size=blob.shape)
    save_weights(net, tmp_path / "w.caffemodel")
    return tmp_path


def _open(folder: Path) -> Net:
    parameter = upgrade_net(read_prototxt(folder / "deploy.prototxt", NetParameter))
    return Net(parameter, LayerContext(create_backend("numpy"), TEST))


def _weights(net: Net) -> dict[str, list[bytes]]:
    return {name: [blob.data.tobytes() for blob in blobs] for name, blobs in net.params.items()}


def _loaded(folder: Path, name: str) -> dict[str, list[bytes]]:
    net = _open(folder)
    load_weights(net, folder / name)
    return _weights(net)


def test_the_command_writes_a_model(folder: Path) -> None:
    done = paratrain_here(folder, "export", "deploy.prototxt", "w.caffemodel", "--onnx", "out.onnx", "--batch", "any")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("written to out.onnx: ONNX opset 17, ")
    assert line.endswith("inputs data (?, 1, 12, 12); outputs prob (?, 5)")
    net = _open(folder)
    load_weights(net, folder / "w.caffemodel")
    for batch in (1, 7):
        inputs = {"data": np.random.default_rng(batch).normal(size=(batch, 1, 12, 12)).astype(np.float32)}
        compare(run_net(net, inputs), run_onnx((folder / "out.onnx").read_bytes(), inputs))


def test_a_training_net_needs_no_data(folder: Path) -> None:
    (folder / "train_val.prototxt").write_text(SMALL_NET)
    command = ("export", "train_val.prototxt", "--onnx", "out.onnx", "--batch", "1")
    assert "--input-shape data=1,3,224,224" in error(paratrain_here(folder, *command))
    assert not (folder / "out.onnx").exists()
    done = paratrain_here(folder, *command, "--input-shape", "data=64,1,28,28")
    assert done.returncode == 0, done.stderr
    assert "no weights are given: what the fillers make is exported" in done.stdout
    assert "inputs data (1, 1, 28, 28); outputs prob (1, 10)" in done.stdout


def test_what_the_weights_lack_is_told(folder: Path) -> None:
    (folder / "deploy.prototxt").write_text(DEPLOY.replace('"fc"', '"fc_new"'))
    done = paratrain_here(folder, "export", "deploy.prototxt", "w.caffemodel", "--onnx", "out.onnx")
    assert done.stdout.splitlines()[0] == "layer 'fc_new' is not in the weights: what its fillers make is exported"
    done = paratrain_here(
        folder,
        "export",
        "-model",
        "deploy.prototxt",
        "-weights",
        "w.caffemodel",
        "--rename",
        "fc:fc_new",
        "--npz",
        "w.npz",
    )
    assert done.stdout.splitlines() == ["written to w.npz: the weights of 2 layers"]


def test_nothing_is_written_for_a_layer_that_cannot_be_said(folder: Path) -> None:
    python = 'layer { name: "mine" type: "Python" bottom: "fc" top: "mine" python_param { module: "m" layer: "L" } }'
    (folder / "m.py").write_text(
        "import paratrain as caffe\n"
        "class L(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): pass\n"
        "    def backward(self, top, propagate_down, bottom): pass\n"
    )
    (folder / "deploy.prototxt").write_text(DEPLOY + python)
    done = paratrain_here(folder, "export", "deploy.prototxt", "--onnx", "out.onnx", "--allow-python")
    assert done.returncode == 1
    assert "1 layer cannot be said in ONNX:\n  'mine' (Python): what it does is written in Python" in done.stderr
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say what to write: --onnx OUT, --npz OUT or --safetensors OUT"),
        (["--npz", "w.txt"], "the name must end in .npz"),
        (["--npz", "w.npz", "--batch", "any"], "--output and --batch go with --onnx"),
        (["--onnx", "nowhere/out.onnx"], "there is no folder nowhere"),
    ],
)
def test_commands_that_cannot_be_understood(options: list[str], message: str, folder: Path) -> None:
    done = paratrain_here(folder, "export", "deploy.prototxt", *options)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("ending", ["npz", "safetensors", "caffemodel.h5"])
def test_weights_go_out_and_come_back_byte_for_byte(ending: str, folder: Path) -> None:
    if ending.endswith("h5"):
        pytest.importorskip("h5py")
    wanted = _loaded(folder, "w.caffemodel")
    for source, target in (("w.caffemodel", f"other.{ending}"), (f"other.{ending}", "back.caffemodel")):
        done = paratrain_here(folder, "convert_weights", source, target)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"written to {target}: 4 arrays of 2 layers\n"
        assert _loaded(folder, target) == wanted
    if not ending.endswith("h5"):  # which holds the weights alone
        assert (folder / "back.caffemodel").read_bytes() == (folder / "w.caffemodel").read_bytes()
    assert read_binary(folder / "back.caffemodel", NetParameter).layer[0].name


def test_a_file_is_not_converted_onto_itself(folder: Path) -> None:
    assert "is the same file" in error(paratrain_here(folder, "convert_weights", "w.caffemodel", "./w.caffemodel"))
    done = paratrain_here(folder, "convert_weights", "w.caffemodel", "w.pth")
    assert (
        done.returncode == 2
        and "must end in one of .caffemodel, .caffemodel.h5, .h5, .npz, .safetensors" in done.stderr
    )


def test_the_examples_of_the_documentation_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands and programs of docs/exporting.md, in order, on files of the names that they use."""
    monkeypatch.chdir(folder)
    shutil.copy("w.caffemodel", "lenet_iter_5000.caffemodel")
    blocks = re.findall(r"```(python)?\n(.*?)```", (REPOSITORY / "docs" / "exporting.md").read_text(), re.DOTALL)
    count = 0
    for language, block in blocks:
        if language:
            exec(compile(block, "exporting.md", "exec"), {})
            count += 1
        for line in () if language else block.splitlines():
            if line.startswith("paratrain "):
                done = paratrain_here(folder, *line.split()[1:])
                assert done.returncode == 0, done.stderr
                count += 1
    assert count == 5
    assert (folder / "lenet.onnx").exists() and (folder / "back.caffemodel").exists()

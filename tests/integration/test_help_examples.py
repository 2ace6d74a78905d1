"""Every example in the help of the commands does what it says, on files of the names that it uses."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from paratrain.topology.sources.find import find_machine
from tests.integration.cli import COMMAND, ENVIRONMENT, SMALL_NET, paratrain, paratrain_here, write_solver
from tests.paths import DATA, GOLDEN

VERBS = ["train", "launch", "test", "time", "check", "upgrade_net", "upgrade_solver", "device_query", "topology"]
DATA_VERBS = ["convert_imageset", "convert_folder", "convert_mnist", "convert_cifar", "compute_image_mean", "data"]
EXPORT_VERBS = ["export", "convert_weights"]
RUN_VERBS = ["plot", "report", "parse_log", "summarize"]


@pytest.fixture(scope="module")
def examples_folder(mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples name: a small net, its solver, and what a short run has left."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (folder / name).symlink_to(mnist_folder / name)
    for name in ("net", "train_val", "deploy", "old_train_val"):
        (folder / f"{name}.prototxt").write_text(SMALL_NET)
    settings = 'net: "net.prototxt"\ntest_iter: 1\ntest_interval: 2\nmax_iter: 3\nsnapshot_prefix: "lenet"\n'
    for name in ("solver", "old_solver"):
        (folder / write_solver(folder, settings, name=name)).rename(folder / f"{name}.prototxt")
    fine = SMALL_NET.replace('"ip1"', '"hidden"')
    (folder / write_solver(folder, "max_iter: 1\n", net=fine, name="fine")).rename(folder / "fine_solver.prototxt")
    shutil.copy(DATA / "topology" / "2gpu_nv2_bridge_tabs.txt", folder / "topo.txt")
    (folder / "images").symlink_to(DATA / "images" / "images")
    shutil.copy(DATA / "images" / "list.txt", folder)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (folder / name).symlink_to(DATA / name)
    (folder / "cifar-10-batches-bin").mkdir()
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        (folder / "cifar-10-batches-bin" / name).write_bytes(bytes(3073 * 2))
    assert paratrain(folder, "train", "solver.prototxt", "--metrics", "run.jsonl").returncode == 0
    shutil.copy(GOLDEN / "log/caffe_train.log", folder / "train.log")
    for name in ("lenet_iter_5000", "pretrained", "old"):
        shutil.copy(folder / "lenet_iter_3.caffemodel", folder / f"{name}.caffemodel")
    shutil.copy(folder / "lenet_iter_3.solverstate", folder / "lenet_iter_5000.solverstate")
    assert paratrain_here(folder, "topology", "--ranks", "4", "--save", "plan.json").returncode == 0
    return folder


def examples(verb: str) -> list[list[str]]:
    """The commands that the help of ``verb`` ends with, without the remarks in brackets."""
    text = paratrain_here(Path.cwd(), *([verb] if verb else []), "--help").stdout.partition("examples:\n")[2]
    return [shlex.split(re.sub(r"\s+\(.*\)$", "", line)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("verb", ["", *VERBS, *DATA_VERBS, *EXPORT_VERBS, *RUN_VERBS])
def test_every_example_of_the_help_works(verb: str, examples_folder: Path, mpirun: str) -> None:
    commands = examples(verb)
    assert commands
    for words in commands:
        if "-gpu" in words and "--cpu" not in words and not find_machine().gpus:
            continue  # it needs a GPU
        start = words.index("paratrain")
        launcher = [mpirun, *words[1:start]] if start else []
        if launcher or words[start + 1] == "launch" or {"-gpu", "--log-dir"} & set(words):
            command = [*launcher, *COMMAND, *words[start + 1 :]]
            done = subprocess.run(
                command, cwd=examples_folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
            )
        else:
            done = paratrain_here(examples_folder, *words[1:])
        assert done.returncode == 0, (words, done.stderr[-2000:])

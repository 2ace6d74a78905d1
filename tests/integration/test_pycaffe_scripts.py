"""Scripts as pycaffe's users write them: ``import caffe`` at the top, run by ``python -m paratrain.as_caffe``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import paratrain as caffe
from tests.integration.cli import ENVIRONMENT
from tests.paths import REPOSITORY

SCRIPTS = Path(__file__).parent / "pycaffe_scripts"
GOLDEN = REPOSITORY / "tests/golden/solvers"
AS_CAFFE = [sys.executable, "-m", "paratrain.as_caffe"]
DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
        convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "pool2" top: "flat" }
layer { name: "prob" type: "Softmax" bottom: "flat" top: "prob" }
"""


@pytest.fixture
def folder(tmp_path: Path, mnist_folder: Path) -> Path:
    """A folder as scripts expect it: the digits, a solver and its net, and a net to look into."""
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    for name in ("sgd.solver.prototxt", "sgd.net.prototxt", "sgd.npz", "sgd_batch_64.npz", "init.caffemodel"):
        shutil.copy(GOLDEN / name, tmp_path)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    caffe.set_random_seed(1)  # differences over a ReLU are no gradients: the same weights in every run
    caffe.Net(tmp_path / "deploy.prototxt", caffe.TEST).save(tmp_path / "deploy.caffemodel")
    caffe.set_random_seed(-1)
    shutil.copy(SCRIPTS / "pyloss.py", tmp_path)
    return tmp_path


def run(
    folder: Path,
    *arguments: str | Path,
    launcher: tuple[str, ...] = (),
    python: tuple[str, ...] | None = None,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    command = [*launcher, *(AS_CAFFE if python is None else python), *map(str, arguments)]
    environment = {**ENVIRONMENT, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("net_surgery", (), "the classifier slides"),
        ("solver_loop", ("sgd.solver.prototxt",), "followed Caffe's losses; test accuracy"),
        ("features", (), "features (300, 32)"),
        ("gradient_ascent", (), "the image excites conv2"),
        ("python_layer", (), "the layer in Python learns as the built-in one"),
        ("memory_data", (), "accuracy"),
    ],
)
def test_a_script(folder: Path, name: str, arguments: tuple[str, ...], last: str) -> None:
    done = run(folder, SCRIPTS / f"{name}.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(last), done.stdout


def test_processes_that_a_script_starts_train_together(folder: Path) -> None:
    done = run(folder, SCRIPTS / "train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["exit codes [0, 0]", "followed Caffe's losses"], done.stderr


def test_a_process_that_ends_is_missed_by_the_others(folder: Path) -> None:
    done = run(folder, SCRIPTS / "train.py", "fail")
    assert "exit codes [1, 1]" in done.stdout, done.stderr
    assert "ValueError: rank 1 gives up" in done.stderr
    assert "CommunicationError: rank 0 of 2:" in done.stderr
    assert "rank 1" in done.stderr.split("CommunicationError: rank 0 of 2:")[1].splitlines()[0]


def test_under_mpirun(folder: Path) -> None:
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpirun is None:
        pytest.skip("no mpirun")
    done = run(folder, SCRIPTS / "ranks.py", "fail", "--flag", launcher=(mpirun, "-n", "2"))
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    weights = lines[0].split()[4]
    assert lines == [f"rank {rank} of 2: {weights} ['fail', '--flag']" for rank in range(2)], done.stderr
    assert done.returncode == 3
    alone = run(folder, SCRIPTS / "ranks.py")
    assert alone.returncode == 0
    assert alone.stdout.split()[4] != weights  # which is of 32 images in a step


# -- how a script is run ------------------------------------------------------------------------------------------

NAMES = """
import sys
import caffe, caffe.io, caffe.draw, caffe.proto.caffe_pb2
import caffe.proto.caffe_pb2 as pb2
from caffe import layers as L, params as P, Net
from caffe.proto import caffe_pb2
from caffe.io import Transformer
from caffe.pycaffe import SGDSolver
from caffe._caffe import Layer, LayerParameter
from caffe.coord_map import crop
import paratrain.pycaffe, paratrain.pycaffe.io
assert caffe is paratrain.pycaffe and caffe.io is paratrain.pycaffe.io and pb2 is caffe_pb2 and Net is caffe.Net
assert caffe.__spec__.name == "paratrain.pycaffe" and caffe.io.__spec__.name == "paratrain.pycaffe.io"
try:
    import caffe.nothing
except ModuleNotFoundError as error:
    print(error)
print(__name__, __file__, sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())

def fail():
    raise ValueError("mine")

if "fail" in sys.argv:
    fail()
if "exit" in sys.argv:
    sys.exit(7)
"""


def test_how_a_script_is_run(tmp_path: Path) -> None:
    (tmp_path / "names.py").write_text(NAMES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(elsewhere, "../names.py", "exit", "--install", "-x")
    assert done.returncode == 7, done.stderr
    file = elsewhere / "../names.py"
    assert done.stdout.splitlines() == [
        "No module named 'caffe.nothing'",
        f"__main__ {file} {['../names.py', 'exit', '--install', '-x']} {tmp_path} True",
    ]
    done = run(tmp_path, "names.py", "fail")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{tmp_path / "names.py"}", line 24, in <module>'
    assert lines[-1] == "ValueError: mine"
    assert "paratrain" not in done.stderr
    done = run(tmp_path, "-m", "names", "a")
    assert done.returncode == 0, done.stderr
    assert f"{[str(tmp_path / 'names.py'), 'a']} {tmp_path} True" in done.stdout


def test_a_script_that_cannot_be_run(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import caffe\ndef\n")
    done = run(tmp_path, "broken.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f'  File "{tmp_path / "broken.py"}", line 2'
    assert done.stderr.splitlines()[-1].startswith("SyntaxError")
    done = run(tmp_path, "nowhere.py")
    assert done.returncode == 2
    assert done.stderr == f"paratrain: no such script: nowhere.py (looked up from {tmp_path})\n"
    assert run(tmp_path).returncode == 2


def test_the_alias_is_switched_on_and_off(tmp_path: Path) -> None:
    venv.create(tmp_path / "env", symlinks=True)
    python = str(tmp_path / "env/bin/python")
    [site] = (tmp_path / "env").glob("lib/python*/site-packages")
    # What paratrain needs is in the environment of the tests.
    packages = os.pathsep.join(entry for entry in sys.path if entry.endswith("-packages"))
    path = os.pathsep.join([str(REPOSITORY), packages])
    program = "import caffe, caffe.io; print(caffe.__name__)"

    def alias(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, *arguments, python=(python, "-m", "paratrain.as_caffe"), PYTHONPATH=path)

    def imported() -> subprocess.CompletedProcess[str]:
        return run(tmp_path, "-c", program, python=(python,), PYTHONPATH=path)

    assert "finds nothing" in alias("--status").stdout
    assert "No module named 'caffe'" in imported().stderr
    done = alias("--install")
    assert done.returncode == 0, done.stderr
    assert f"finds paratrain from now on, wherever {python} runs: {site / 'caffe.py'}" in done.stdout
    assert alias("--install").returncode == 0  # again is no harm
    assert imported().stdout == "paratrain.pycaffe\n"
    assert f"finds paratrain: {site / 'caffe.py'}" in alias("--status").stdout
    assert "removed" in alias("--remove").stdout
    assert not (site / "caffe.py").exists()
    assert "there is no" in alias("--remove").stdout

    real = site / "caffe/__init__.py"
    real.parent.mkdir()
    real.write_text("__version__ = '1.0.0'\n")
    done = alias("--install")
    assert done.returncode == 1
    assert done.stderr.startswith(f"paratrain: there is a Caffe in this environment, {real}, and it stays")
    assert not (site / "caffe.py").exists()
    assert f"finds a Caffe: {real}" in alias("--status").stdout
    assert imported().stdout == ""  # it is the other's, which has no io
    shutil.rmtree(real.parent)
    (site / "caffe.py").write_text("x = 1\n")
    done = alias("--remove")
    assert done.returncode == 1
    assert "is not paratrain's, and stays" in done.stderr

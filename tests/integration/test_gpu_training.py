"""`paratrain train` and `test` as users of GPUs run them; the GPUs are simulated, ranks are processes under mpirun."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.cli import COMMAND, SMALL_NET, figures, write_solver
from tests.simulated_gpu_path import environment

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the simulated GPU compiles kernels by g++")

SETTINGS = "display: 1\nmomentum: 0.9\nweight_decay: 0.0005\nsolver_mode: GPU\ntest_iter: 1\ntest_interval: 4\n"


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    write_solver(tmp_path, SETTINGS)
    write_solver(tmp_path, SETTINGS, net=SMALL_NET.replace("batch_size: 32", "batch_size: 64"), name="double")
    return tmp_path


def run(
    folder: Path, *words: str, gpus: int = 1, launcher: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*launcher, *COMMAND, *words],
        cwd=folder,
        env=environment(gpus, XDG_CACHE_HOME=str(folder / "cache"), **variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def losses(path: Path) -> list[float]:
    return [line["loss"] for line in figures(path) if "loss" in line]


def test_ranks_on_one_gpu_and_on_two_take_the_steps_of_one(folder: Path, mpirun: str) -> None:
    alone = run(folder, "train", "double.solver.prototxt", "--metrics", "alone.jsonl")
    assert alone.returncode == 0, alone.stderr
    assert "Use GPU 0 (Simulated GPU, bus 0000:1b:00.0), float32." in alone.stderr
    assert "Ranks: 1 on 1 node, on 1 GPU" in alone.stderr
    expected = losses(folder / "alone.jsonl")
    assert len(expected) == 4
    two = (mpirun, "-n", "2")
    shared = "through the GPUs' memory (CUDA IPC)"
    for gpus, words, lines in (
        (1, ("--exchange", "tree"), [f"Exchange: tree, {shared}, the root updates", "Ranks: 2 on 1 node, on 1 GPU"]),
        (
            2,
            ("--exchange", "sharded"),
            [f"Exchange: sharded, {shared}", "rank 1 -> GPU 1 (Simulated GPU, bus 0000:2b:00.0)"],
        ),
        (
            2,
            ("--exchange", "ring", "-gpu", "1,0"),
            ["Exchange: ring, through the host's memory", "rank 1 -> GPU 0 (Sim"],
        ),
    ):
        metrics = f"{gpus}.{words[1]}.jsonl"
        arguments = ("train", "small.solver.prototxt", "--metrics", metrics, "--verify-every", "1", *words)
        done = run(folder, *arguments, gpus=gpus, launcher=two)
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(losses(folder / metrics), expected, rtol=2e-3)
        assert all(line in done.stderr for line in lines), done.stderr
        assert "memory was freed that another process has open" not in done.stderr
        warning = "ranks 0-1 share GPU 0 (Simulated GPU, bus 0000:1b:00.0): they take turns on it"
        assert (warning in done.stderr) == (gpus == 1)


def test_a_list_of_gpus_starts_as_many_ranks(folder: Path) -> None:
    done = run(folder, "train", "small.solver.prototxt", "-gpu", "all", "--iterations", "1", gpus=2)
    assert done.returncode == 0, done.stderr
    assert "rank 1 -> GPU 1 (Simulated GPU" in done.stderr
    assert "Effective batch: 64 images = batch_size 32 x iter_size 1 x 2 ranks" in done.stderr
    assert "Exchange auto: " in done.stderr


def test_what_cannot_be_had_is_said(folder: Path) -> None:
    for gpus, words, message in (
        (2, ("-gpu", "7"), "-gpu 7: this machine has 2 GPUs (0, 1)"),
        (0, ("-gpu", "0"), "-gpu 0: no NVIDIA GPU: "),
        (1, ("--exchange", "nccl", "--cpu"), "nccl exchanges between GPUs; this run computes on the CPU"),
    ):
        done = run(folder, "train", "small.solver.prototxt", *words, gpus=gpus)
        assert done.returncode == 1
        assert f"paratrain: {message}" in done.stderr
        assert "Traceback" not in done.stderr


def test_one_gpu_needs_no_mpi(folder: Path) -> None:
    program = (
        "import sys; from paratrain.launch.cli import main; "
        "code = main(['train', 'small.solver.prototxt', '-gpu', '0', '--iterations', '1']); "
        "sys.exit(code or any(name.split('.')[0] == 'mpi4py' for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_full_gpu(folder: Path, mpirun: str) -> None:
    """The message says what was wanted and what would fit; with several ranks the others end as well."""
    net = SMALL_NET.replace("batch_size: 32", "batch_size: 2000")
    write_solver(folder, SETTINGS, net=net, name="large")
    little = str(80_000_000)
    done = run(folder, "train", "large.solver.prototxt", SIMULATED_GPU_BYTES=little)
    assert done.returncode == 1
    found = done.stderr.splitlines()[-1]
    assert found.startswith("paratrain: layer '"), done.stderr
    assert "GPU 0 is full: " in found
    assert " bytes were wanted, " in found
    batch = int(found.split("a batch_size of ")[1].split()[0])
    assert 10 < batch < 2000
    write_solver(folder, SETTINGS, net=SMALL_NET.replace("batch_size: 32", f"batch_size: {batch}"), name="fitting")
    fitting = run(folder, "train", "fitting.solver.prototxt", "--iterations", "1", SIMULATED_GPU_BYTES=little)
    assert fitting.returncode == 0, fitting.stderr[-2000:]

    train = [*COMMAND, "train", "small.solver.prototxt", "--exchange", "tree"]
    launcher = (mpirun, "-n", "1", *train, ":", "-n", "1", "env", "SIMULATED_GPU_BYTES=9000000")
    failed = run(folder, "train", "small.solver.prototxt", "--exchange", "tree", gpus=2, launcher=launcher)
    assert failed.returncode != 0
    assert "rank 1 of 2" in failed.stderr
    assert "GPU 1 is full" in failed.stderr

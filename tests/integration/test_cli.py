"""The command line's verbs, on one rank."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import paratrain
from tests.integration.cli import COMMAND, ENVIRONMENT, figures, messages, write_solver
from tests.integration.cli import paratrain as run
from tests.paths import GOLDEN, REPOSITORY

NUMBER = r"[-+.\deE]+"


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def test_a_run_from_a_solver_to_a_caffemodel(folder: Path) -> None:
    solver = write_solver(folder, "test_iter: 2\ntest_interval: 4\nsnapshot: 2\n")
    done = run(folder, "train", solver, "--metrics", "run.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = messages(done)
    assert re.fullmatch(r"Use CPU, (numpy|oneDNN) .*\. \(solver_mode: CPU\)", lines[0])
    assert "Effective batch: 32 images = batch_size 32 x iter_size 1 x 1 ranks" in lines
    assert lines[-2:] == ["Optimization Done.", "Optimization Done."]
    order = ["Solver scaffolding done.", "Starting Optimization", "Solving small", "Learning Rate Policy: fixed"]
    assert [line for line in lines if line in order] == order
    snapshots = {f"small_iter_{at}.{kind}" for at in (2, 4) for kind in ("caffemodel", "solverstate", "trainstate")}
    assert {path.name for path in folder.glob("small_iter*")} == snapshots
    metrics = figures(folder / "run.jsonl")
    assert [line["iteration"] for line in metrics] == [0, 0, 2, 4]
    assert set(metrics[0]["outputs"]) == {"accuracy", "loss"}


def test_the_log_is_read_by_the_expressions_of_caffes_log_parser(folder: Path) -> None:
    solver = write_solver(folder, "test_iter: 2\ntest_interval: 2\n")
    log = run(folder, "train", solver).stderr
    rows: dict[str, list[tuple[int, ...]]] = {"train": [], "test": [], "lr": []}
    iteration = -1
    for line in log.splitlines():
        found = re.search(r"Iteration (\d+)", line)
        iteration = int(found[1]) if found else iteration
        if iteration < 0:
            continue
        stamp = line.split()
        assert re.fullmatch(r"I\d{4}", stamp[0])
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{6}", stamp[1])
        for kind in ("Train", "Test"):
            output = re.search(rf"{kind} net output #(\d+): (\S+) = ({NUMBER})", line)
            if output:
                rows[kind.lower()].append((iteration, int(output[1])))
        if re.search(rf"lr = {NUMBER}", line):
            rows["lr"].append((iteration,))
    assert rows["train"] == [(0, 0), (2, 0)]
    assert rows["test"] == [(at, output) for at in (0, 2, 4) for output in (0, 1)]
    assert rows["lr"] == [(0,), (2,)]
    assert any("] Solving " in line for line in log.splitlines())


def test_our_lines_are_those_of_a_log_of_caffe(folder: Path) -> None:
    """Line by line, with numbers, file names and iterations left out."""

    def shapes(text: str) -> set[str]:
        lines = [line.split("] ", 1)[1] for line in text.splitlines() if re.match(r"I\d{4} .* \S*solver\.", line)]
        differs = r"(?<![\w#.])-?\d[-+.\deE]*s?(?!\w)|\S*_iter_\S*|\S*prototxt|small|LeNet|inv|fixed"
        return {re.sub(differs, "_", line) for line in lines}

    solver = write_solver(folder, "test_iter: 2\ntest_interval: 2\nsnapshot: 4\n")
    ours, theirs = shapes(run(folder, "train", solver).stderr), shapes((GOLDEN / "log" / "caffe_train.log").read_text())
    assert len(theirs) > 10
    about_nets = {line for line in theirs if line.startswith("Creating")}
    assert theirs - about_nets <= ours


@pytest.mark.parametrize("spelling", [["-solver", "F"], ["--solver", "F"], ["-solver=F"], ["--solver=F"], ["F"]])
def test_caffes_spellings(folder: Path, spelling: list[str]) -> None:
    solver = write_solver(folder, "max_iter: 1\n")
    done = run(folder, "train", *[word.replace("F", solver) for word in spelling])
    assert done.returncode == 0, done.stderr
    assert (folder / "small_iter_1.caffemodel").exists()


def test_weights_and_a_snapshot_are_where_training_starts(folder: Path) -> None:
    solver = write_solver(folder, "display: 1\n")
    assert run(folder, "train", solver).returncode == 0
    fine = run(folder, "train", "--solver=" + solver, "-weights", "small_iter_4.caffemodel")
    assert "Finetuning from small_iter_4.caffemodel" in messages(fine)
    assert any(line.startswith("Iteration 0 (") for line in messages(fine))
    longer = write_solver(folder, "display: 1\nmax_iter: 6\n")
    resumed = run(folder, "train", longer, "-snapshot", "small_iter_4.solverstate")
    assert resumed.returncode == 0, resumed.stderr
    lines = messages(resumed)
    assert "Resuming from small_iter_4.solverstate" in lines
    shown = [line.split(" ")[1] for line in lines if " iters), loss = " in line]
    assert shown == ["4", "5"]
    assert (folder / "small_iter_6.solverstate").exists()


def test_a_stage_chooses_layers(folder: Path) -> None:
    solver = write_solver(folder, "max_iter: 1\n")
    done = run(folder, "train", solver, "-stage", "bn", "-level", "1")
    assert done.returncode == 0, done.stderr
    assert "Creating Layer bn1" in messages(done)
    assert "Creating Layer copy1" not in messages(done)


def test_the_cpu_is_used_and_the_log_says_why(folder: Path) -> None:
    asked = run(folder, "train", write_solver(folder, "solver_mode: GPU\nmax_iter: 1\n"), "--cpu")
    assert re.fullmatch(r"Use CPU, (numpy|oneDNN) .*\. \(--cpu\)", messages(asked)[0])
    gpu_mode = run(folder, "train", write_solver(folder, "solver_mode: GPU\nmax_iter: 1\n"))
    assert gpu_mode.returncode == 0
    assert re.match(
        r"Use CPU, .*\. \((no NVIDIA GPU: .*|this version of paratrain has no GPU backend.*)\)", messages(gpu_mode)[0]
    )


def test_scores_are_printed_as_caffe_prints_them(folder: Path) -> None:
    assert run(folder, "train", write_solver(folder)).returncode == 0
    done = run(
        folder, "test", "-model", "small.net.prototxt", "-weights", "small_iter_4.caffemodel", "-iterations", "3"
    )
    assert done.returncode == 0, done.stderr
    lines = messages(done)
    start = lines.index("Running for 3 iterations.")
    found = [re.sub(rf"= {NUMBER}", "= _", line) for line in lines[start + 1 :]]
    batches = [f"Batch {number}, {name} = _" for number in range(3) for name in ("accuracy", "loss")]
    assert found[:6] == batches
    assert re.fullmatch(rf"Loss: {NUMBER}", found[6])
    assert found[7:] == ["accuracy = _", "loss = _ (* 1 = _ loss)"]
    values = [float(line.rsplit(" ", 1)[1]) for line in lines[start + 1 : start + 7]]
    assert float(lines[start + 8].split(" = ")[1]) == pytest.approx(sum(values[::2]) / 3, rel=1e-4)
    assert float(lines[start + 7].split()[1]) == pytest.approx(sum(values[1::2]) / 3, rel=1e-4)


def test_every_layer_is_timed(folder: Path) -> None:
    write_solver(folder)
    done = run(folder, "time", "--model=small.net.prototxt", "--iterations=2", "--phase=TEST")
    assert done.returncode == 0, done.stderr
    lines = messages(done)
    start = lines.index("Average time per layer: ")
    timed = re.findall(rf"^ *(\S+)\t(forward|backward): {NUMBER} ms\.$", "\n".join(lines[start:]), re.M)
    names = [name for name, _ in timed[::2]]
    assert timed == [(name, way) for name in names for way in ("forward", "backward")]
    assert {"data", "conv1", "ip2", "accuracy", "loss"} <= set(names)
    totals = [line.split(":")[0] for line in lines[-5:]]
    assert totals[:4] == ["Average Forward pass", "Average Backward pass", "Average Forward-Backward", "Total Time"]
    assert lines[-1] == "*** Benchmark ends ***"
    assert sum(line.startswith("Iteration: ") for line in lines) == 2


@pytest.mark.parametrize("verb", [[], ["train"], ["test"], ["time"], ["device_query"], ["topology"]])
def test_help(tmp_path: Path, verb: list[str]) -> None:
    done = run(tmp_path, *verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: paratrain" in done.stdout
    assert "examples:\n  paratrain " in done.stdout


def test_the_version(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"paratrain {paratrain.__version__}\n"


def test_a_verb_loads_no_more_than_it_needs(tmp_path: Path) -> None:
    code = (
        "import sys; from paratrain.launch.cli import main; main(['topology', '--help'])\n"
        "print(sorted({'numpy', 'lmdb', 'mpi4py', 'google.protobuf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    """As in ``paratrain train ... 2>&1 | head -1``: the log cannot be written any more, and nothing is said about it."""
    solver = write_solver(folder)
    command = [*COMMAND, "train", solver]
    with subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        process.stderr.readline()
        process.stderr.close()
        assert process.stdout.read() == b""
        assert process.wait(timeout=60) == 0
    assert (folder / "small_iter_4.caffemodel").exists()

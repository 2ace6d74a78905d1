"""The options of train, test and time beside those of Caffe, on one rank and on several."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from paratrain.data import LmdbWriter
from paratrain.proto import Datum, NetParameter, blob_to_array, read_binary
from tests.integration.cli import SMALL_NET, error, figures, messages, paratrain, paratrain_here, write_solver


@pytest.fixture
def folder(mnist_folder: Path, tmp_path: Path) -> Path:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    return tmp_path


def values_of(path: Path) -> dict[str, list[bytes]]:
    model = read_binary(path, NetParameter)
    return {layer.name: [blob_to_array(blob).tobytes() for blob in layer.blobs] for layer in model.layer if layer.blobs}


def test_fields_the_seed_and_the_length_of_a_run(folder: Path) -> None:
    solver = write_solver(folder, "max_iter: 50\n")
    settings = ["--set", "display=1", "--set=base_lr=0.5", "--seed", "11", "-iterations", "2"]
    first = paratrain_here(folder, "train", solver, *settings, "--set", "snapshot_prefix=a")
    assert first.returncode == 0, first.stderr
    assert "Exchange" not in first.stderr  # one rank has nobody to exchange with
    shown = [line for line in messages(first) if line.startswith("Iteration")]
    assert [line.split()[1].rstrip(",") for line in shown if "iter/s" in line] == ["0", "1"]
    assert "Iteration 0, lr = 0.5" in shown
    again = paratrain_here(folder, "train", solver, *settings, "--set", "snapshot_prefix=b")
    assert again.returncode == 0
    other = paratrain_here(folder, "train", solver, *settings, "--set", "snapshot_prefix=c", "--seed", "12")
    assert other.returncode == 0
    a, b, c = (values_of(folder / f"{name}_iter_2.caffemodel") for name in "abc")
    assert a == b
    assert a != c
    more = paratrain_here(folder, "train", solver, "-snapshot", "a_iter_2.solverstate", "--iterations", "3")
    assert more.returncode == 0, more.stderr
    assert (folder / "small_iter_5.solverstate").exists()


def test_a_quiet_run_still_writes_its_log_and_its_metrics(folder: Path) -> None:
    solver = write_solver(folder)
    done = paratrain(folder, "train", solver, "--quiet", "--log-dir", "logs/deep", "--metrics", "run.jsonl")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
    [path] = [path for path in (folder / "logs/deep").iterdir() if not path.is_symlink()]
    assert re.fullmatch(r"paratrain\.[^.]+\.\S+\.log\.INFO\.\d{8}-\d{6}\.\d+", path.name)
    lines = (folder / "logs/deep/paratrain.INFO").read_text().splitlines()
    assert lines[0].startswith("Log file created at: ")
    assert lines[1].startswith("Running on machine: ")
    assert all(re.match(r"[IW]\d{4} \d\d:\d\d:\d\d\.\d{6} ", line) for line in lines if "] Iteration" in line)
    assert lines[-1].endswith("] Optimization Done.")
    assert len(figures(folder / "run.jsonl")) == 2


def test_the_log_is_in_both_places(folder: Path) -> None:
    done = paratrain(folder, "train", write_solver(folder, "max_iter: 1\n"), "--log-dir", ".")
    kept = (folder / "paratrain.INFO").read_text().splitlines()[3:]
    assert done.stderr.splitlines()[-len(kept) :] == kept


def test_one_batch_for_all_ranks_follows_one_rank(folder: Path, mpirun: str) -> None:
    solver = write_solver(folder, "display: 1\n")
    one = paratrain(folder, "train", solver)
    two = paratrain(folder, "train", solver, "--batch-mode", "global", launcher=(mpirun, "-n", "2"))
    assert two.returncode == 0, two.stderr
    assert "Effective batch: 32 images = batch_size 16 x iter_size 1 x 2 ranks" in messages(two)
    losses = [
        [float(line.rsplit(" ", 1)[1]) for line in messages(done) if " iters), loss = " in line] for done in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    three = paratrain(folder, "train", solver, "--batch-mode=global", launcher=(mpirun, "-n", "3"))
    assert "layer 'data' (Data): batch_size is 32, which 3 ranks cannot share evenly" in error(three)
    assert "make it 30 or 33" in error(three)


def test_the_numbers_of_the_run(folder: Path, mpirun: str) -> None:
    solver = write_solver(folder, "display: 2\nmax_iter: 4\niter_size: 2\n")
    done = paratrain(folder, "train", solver, "--metrics", "run.jsonl", launcher=(mpirun, "-n", "2"))
    lines = messages(done)
    assert "Ranks: 2 on 1 node, each on the CPU" in lines
    assert "Effective batch: 128 images = batch_size 32 x iter_size 2 x 2 ranks" in lines
    assert "Records: 8000 in layer 'data', 62.5 iterations an epoch; max_iter 4 is 0.064 epochs" in lines
    count = 8 * 26 + 32 * (8 * 36 + 1) + 330
    assert f"Parameters: {count} learnable values in 6 blobs, 0 values of running statistics" in lines
    size = f"{count * 4 / 1000:.4g} kB"
    assert (
        "Exchange: sharded, through shared memory, every rank updates a part, in 1 slice; "
        f"in every step {size} of gradients of each rank, and {size} of parameters for it" in lines
    )
    time = r"[\d.]+ [um]?s"
    [chosen] = [line for line in lines if line.startswith("Exchange auto: ")]
    assert re.fullmatch(
        f"Exchange auto: sharded, predicted to take {time} a step, update included; (tree|ring|mpi) {time}"
        f", (tree|ring|mpi) {time}, (tree|ring|mpi) {time}",
        chosen,
    )
    displayed = figures(folder / "run.jsonl")
    each, later = (line["exchange_predicted_s"] for line in displayed)  # of iteration 0, and of 1 and 2
    assert later == pytest.approx(2 * each) != 0
    for line in displayed:
        assert line["loss_min"] < line["loss_max"]
        assert line["loss"] == pytest.approx((line["loss_min"] + line["loss_max"]) / 2)
    assert sum("Ranks differ in their losses from" in line for line in lines) == 2


def test_ranks_share_a_test_and_print_what_one_prints(folder: Path, mpirun: str) -> None:
    assert paratrain(folder, "train", write_solver(folder)).returncode == 0
    arguments = ["test", "-model", "small.net.prototxt", "-weights", "small_iter_4.caffemodel", "-iterations", "5"]
    printed = []
    for launcher in ((), (mpirun, "-n", "2"), (mpirun, "-n", "3")):
        done = paratrain(folder, *arguments, launcher=launcher)
        assert done.returncode == 0, done.stderr
        lines = messages(done)
        printed.append(lines[lines.index("Running for 5 iterations.") :])
    assert len(printed[0]) == 14
    assert printed[1] == printed[0]
    assert printed[2] == printed[0]


def test_time_on_ranks_times_the_exchange(folder: Path, mpirun: str) -> None:
    write_solver(folder)
    done = paratrain(folder, "time", "-model", "small.net.prototxt", "-iterations", "3", launcher=(mpirun, "-n", "2"))
    assert done.returncode == 0, done.stderr
    lines = messages(done)
    count = 8 * 26 + 32 * (8 * 36 + 1) + 330
    number = r"[\d.e+-]+"
    assert re.fullmatch(
        rf"Average Exchange of {count * 4} bytes, 2 ranks: {number} ms "
        rf"\(parameters down: {number} ms, gradients up: {number} ms\)\.",
        lines[-2],
    )
    assert lines.count("Average time per layer: ") == 1


def test_fine_tuning_says_what_was_taken_and_what_was_left(folder: Path) -> None:
    assert paratrain(folder, "train", write_solver(folder)).returncode == 0
    other = SMALL_NET.replace('"ip1"', '"hidden"').replace("num_output: 10", "num_output: 20")
    solver = write_solver(folder, "max_iter: 0\n", net=other, name="fine")
    weights = ["-weights", "small_iter_4.caffemodel"]
    refused = error(paratrain_here(folder, "train", solver, *weights))
    assert "(20, 32) in the net and (10, 32) in the weights" in refused
    assert "--allow-mismatch" in refused
    done = paratrain_here(folder, "train", solver, *weights, "--rename", "ip1:hidden", "--allow-mismatch")
    assert done.returncode == 0, done.stderr
    lines = messages(done)
    start = lines.index("Weights of 2 layers taken, of 1 left; 1 layers of the net keep theirs")
    assert lines[start + 1] == "    conv1  taken  (8, 1, 5, 5), (8,)"
    assert lines[start + 2] == "    ip1    taken  (32, 288), (32,) as 'hidden'"
    assert lines[start + 3].startswith("    ip2    left   layer 'ip2' (InnerProduct): parameter 0 has shape (20, 32) ")
    assert lines[start + 4] == "    ip2    kept   the weights do not fit"
    before, after = values_of(folder / "small_iter_4.caffemodel"), values_of(folder / "fine_iter_0.caffemodel")
    assert after["hidden"] == before["ip1"]
    assert after["conv1"] == before["conv1"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--set", "momentun=0.9"], "--set momentun=0.9: "),
        (["--set", "max_iter=-1"], "max_iter is -1; it must be 0 or more"),
        (["--set", "test_iter=3"], "test_interval is 0"),
        (["--rename", "a:b"], "are about weights, and there are none"),
        (["-weights", "w.caffemodel", "--rename", "a:ip1"], "the weights have no layer 'a'"),
        (["-weights", "w.caffemodel", "--rename", "ip1:a"], "the network has no layer 'a'"),
        (["-weights", "w.caffemodel", "--rename", "ip1:ip2", "--rename", "ip1:ip1"], "names 'ip1' twice"),
        (["--log-dir", "small.net.prototxt/x"], "the log cannot be written there"),
        (["--exchange", "sharded", "--roots", "2"], "--roots 2: expected 1 to 1, the number of ranks"),
        (["--roots", "1"], "the exchange is 'auto': give both, or leave --roots out"),
        (["--exchange", "nccl"], "nccl exchanges between GPUs; this run computes on the CPU"),
    ],
)
def test_options_that_cannot_be_followed(folder: Path, golden: Path, arguments: list[str], part: str) -> None:
    (folder / "w.caffemodel").symlink_to(golden / "solvers" / "init.caffemodel")
    assert part in error(paratrain_here(folder, "train", write_solver(folder), *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "-1"],
        ["--iterations", "0"],
        ["--nan", "go"],
        ["-sigint_effect", "die"],
        ["--rename", "a"],
        ["--batch-mode", "both"],
        ["--exchange", "star"],
        ["--exchange", "sharded", "--roots", "0"],
    ],
)
def test_options_that_cannot_be_understood(tmp_path: Path, arguments: list[str]) -> None:
    done = paratrain_here(tmp_path, "train", "solver.prototxt", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: paratrain")


def test_a_record_that_is_not_a_number_stops_all_ranks_or_is_skipped(folder: Path, mpirun: str) -> None:
    (folder / "mnist_train_lmdb").unlink()
    with LmdbWriter(folder / "mnist_train_lmdb") as writer:
        for index in range(256):
            datum = Datum(channels=1, height=28, width=28, label=index % 10)
            datum.float_data.extend([float("nan") if index == 101 else 0.5] * 784)
            writer.put(b"%08d" % index, datum.SerializeToString())
    solver = write_solver(folder, "display: 1\nsnapshot: 1\n")
    done = paratrain(folder, "train", solver, launcher=(mpirun, "-n", "2"))
    message = error(done)
    # What is not a number comes out of oneDNN's ReLU as 0: then the gradient tells, and not the loss.
    first = "the first that is not finite is blob 'data'"
    assert re.match(rf"iteration 1 on rank 1 of 2: the (loss is nan|gradient is not finite); {first}", message)
    assert "(of the records 00000101)" in message
    assert {path.name for path in folder.glob("*.caffemodel")} == {"small_iter_1.caffemodel"}
    skipped = paratrain(folder, "train", solver, "--nan", "skip", launcher=(mpirun, "-n", "2"))
    assert skipped.returncode == 0, skipped.stderr
    assert any(line.startswith("Iteration 1 is skipped on rank 1 of 2: ") for line in messages(skipped))
    assert values_of(folder / "small_iter_1.caffemodel") == values_of(folder / "small_iter_2.caffemodel")
    assert values_of(folder / "small_iter_2.caffemodel") != values_of(folder / "small_iter_3.caffemodel")

"""Every command that the readmes of examples/ show, at a smaller size; and the notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from paratrain.proto import NetParameter, blob_to_array
from paratrain.tools.runs import open_run
from tests.integration.readme_commands import Checkout, commands


@pytest.fixture
def checkout(tmp_path: Path, mpirun: str) -> Checkout:
    return Checkout(tmp_path)


def scores(log: str, name: str) -> list[float]:
    """What the log of a training run says of an output of its test net, test by test."""
    return [float(value) for value in re.findall(rf"Test net output #\d: {name} = ([\d.e-]+)", log)]


def losses(log: str) -> list[float]:
    """The losses of the iterations that are displayed."""
    return [float(loss) for loss in re.findall(r"Iteration \d+.*, loss = (\S+)", log)]


def weights(path: Path) -> dict[str, list[np.ndarray]]:
    """The values of each layer that a caffemodel holds."""
    net = NetParameter.FromString(path.read_bytes())
    return {layer.name: [blob_to_array(blob) for blob in layer.blobs] for layer in net.layer if layer.blobs}


def test_digits(checkout: Checkout) -> None:
    checkout.run_readme("digits", {"mpirun": "--set max_iter=50 --set snapshot=50"})
    output = checkout.folder / "demo-output"
    metrics = open_run(output / "metrics.jsonl")
    training = metrics.training["loss"]
    assert set(training) == {0, 10, 20, 30, 40}
    assert training[40] < 0.3 * training[0]
    assert set(metrics.tests[0, "accuracy"]) == {0, 50}
    # Seeded, so always alike on one machine: 0.86 where this was written.
    assert metrics.tests[0, "accuracy"][50] > 0.8
    assert (output / "loss_and_accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (output / "report.html").read_text()

    model = "examples/digits/lenet_train_test.prototxt"
    log = checkout.run(f"paratrain test -model {model} -weights demo-output/lenet_iter_50.caffemodel -iterations 3")
    (accuracy,) = re.findall(r"\] accuracy = ([\d.]+)$", log, re.MULTILINE)
    assert float(accuracy) == pytest.approx(metrics.tests[0, "accuracy"][50], abs=1e-5)


def test_quickstart(checkout: Checkout) -> None:
    """The commands of docs/quickstart.md; a run of 6 iterations stands for one that has ended."""
    shorter = "--set max_iter=6 --set test_iter=1 --set snapshot=6"
    ended = "demo-output/lenet_iter_400"
    *_, resumed, fine_tuned, tested, timed = checkout.run_page(
        "docs/quickstart.md",
        {r"train examples\S+$": shorter, "--metrics": shorter, "-snapshot|-weights.*400.caffemodel$": shorter}
        | {"paratrain time": "-iterations 1"},
        {ended: "demo-output/lenet_iter_6"},
    )
    assert "Resuming from demo-output/lenet_iter_400.solverstate" in resumed
    assert len(losses(fine_tuned)) == 1
    assert re.search(r"\] accuracy = [\d.]+$", tested, re.MULTILINE)
    assert "Average Forward-Backward" in timed


def test_mnist(checkout: Checkout) -> None:
    """The test digits stand for all of MNIST's files where the readme takes these."""
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (checkout.folder / f"{part}-{kind}-ubyte.gz").symlink_to(f"tests/data/t10k-{kind}-ubyte.gz")
    shorter = "--set max_iter=3 --set test_iter=1"
    made, _, one, two, _, train, _, _ = checkout.run_readme("mnist", {"paratrain train": shorter})
    assert "8,000 digits" in made
    assert "10,000 digits" in train
    assert len(scores(one, "loss")) == 2
    assert scores(one, "loss") == pytest.approx(scores(two, "loss"), rel=1e-4)  # two ranks share each batch
    assert (checkout.folder / "examples/mnist/lenet_iter_3.caffemodel").is_file()


def test_cifar10(checkout: Checkout) -> None:
    quick = "demo-output/cifar10/quick_iter"
    *_, shown, first, second = checkout.run_readme(
        "cifar10",
        {
            "make_pictures": "--count 250",
            "paratrain train": "--set test_iter=1 --set test_interval=20 --set display=1",
            r"solver\.prototxt$": "--set max_iter=20",
            "-snapshot": "--set max_iter=22",
        },
        {f"{quick}_4000": f"{quick}_20"},
    )
    assert "1,250 records" in shown
    before, after = scores(first, "loss")
    assert after < 0.9 * before
    rates = re.findall(r"Iteration (\d+), lr = (\S+)", second)
    assert rates == [("20", "0.0001"), ("21", "0.0001")]
    assert (checkout.folder / f"{quick}_22.solverstate").is_file()


def test_made_pictures_differ_by_shape_and_colour(checkout: Checkout) -> None:
    """Warm colours have more red than blue where the shape lies, cool ones less; grounds say nothing."""
    checkout.run("python examples/cifar10/make_pictures.py made --count 300")
    records = np.fromfile(checkout.folder / "made/test_batch.bin", np.uint8).reshape(-1, 3073)
    labels, pictures = records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32).astype(float)
    assert set(labels) == set(range(10))
    middle = pictures[:, 0, 14:18, 14:18].mean((1, 2)) - pictures[:, 2, 14:18, 14:18].mean((1, 2))
    corner = pictures[:, 0, :4, :4].mean((1, 2)) - pictures[:, 2, :4, :4].mean((1, 2))
    solid = np.isin(labels % 5, (0, 2, 3))
    assert np.mean((middle[solid] > 0) == (labels[solid] < 5)) > 0.9
    assert np.mean((corner > 0) == (labels < 5)) < 0.6


def test_finetuning(checkout: Checkout) -> None:
    folder = "demo-output/finetuning"
    _, _, scratch, tuned, _, frozen = checkout.run_readme(
        "finetuning",
        {
            "0_to_4_solver": "--set max_iter=40 --set test_iter=1",
            "5_to_9_solver": "--set max_iter=10 --set test_interval=10 --set test_iter=5",
        },
        {f"{folder}/lenet_0_to_4_iter_500": f"{folder}/lenet_0_to_4_iter_40"},
    )
    readme = (checkout.folder / "examples/finetuning/readme.md").read_text()
    (table,) = re.findall(r"^```\n(Weights of .*?)```$", readme, re.MULTILINE | re.DOTALL)
    for line in table.splitlines():
        assert line in tuned
        assert line in frozen
    assert "conv1 needs backward computation." in tuned
    assert "conv1 does not need backward computation." in frozen
    # 0.57 from scratch and 0.71 with the weights where this was written.
    assert scores(tuned, "accuracy")[-1] > scores(scratch, "accuracy")[-1]

    before = weights(checkout.folder / folder / "lenet_0_to_4_iter_40.caffemodel")
    after = weights(checkout.folder / folder / "lenet_5_to_9_iter_10.caffemodel")
    for name in ("conv1", "conv2", "ip1"):
        np.testing.assert_array_equal(before[name][0], after[name][0])
    assert set(after) == {"conv1", "conv2", "ip1", "ip2_5_to_9"}


def test_siamese(checkout: Checkout) -> None:
    stem = "demo-output/siamese/mnist_siamese"
    made, log, said = checkout.run_readme(
        "siamese",
        {
            "make_pairs": "--pairs 1",
            "solver": "--set max_iter=30 --set test_iter=2 --set test_interval=30",
        },
        {f"{stem}_iter_2000": f"{stem}_iter_30"},
    )
    assert "8,000 pairs" in made
    before, after = scores(log, "loss")
    assert after < 0.6 * before
    trained = weights(checkout.folder / f"{stem}_iter_30.caffemodel")
    for name in ("conv1", "conv2", "ip1", "ip2", "feat"):
        np.testing.assert_array_equal(trained[name][0], trained[f"{name}_p"][0])
    (share,) = re.findall(r"([\d.]+)% of 2,000 test digits", said)
    assert float(share) > 20  # 10 would be chance
    assert (checkout.folder / "demo-output/siamese/embedding.png").read_bytes().startswith(b"\x89PNG")


def test_python_layer(checkout: Checkout) -> None:
    """The loss in Python gives what the built-in one gives."""
    shorter = "--set max_iter=60 --set test_iter=4 --set test_interval=60 --set display=20"
    one, two = checkout.run_readme("python_layer", {"train": shorter})
    assert len(losses(one)) == 4
    first, last = scores(two, "accuracy")
    assert first < 0.3
    assert last > 0.6

    path = checkout.folder / "examples/python_layer/regression_train_test.prototxt"
    text, count = re.subn(
        r'type: "Python"(\s+bottom: "answer"[^{}]*)python_param {[^{}]*}', r'type: "EuclideanLoss"\1', path.read_text()
    )
    assert count == 1
    path.write_text(text)
    first_command = commands(path.parent / "readme.md")[0]
    assert losses(checkout.run(f"{first_command} {shorter}")) == pytest.approx(losses(one), rel=1e-4)


def test_net_spec(checkout: Checkout) -> None:
    smaller = {"train.py": "--iterations 30", "paratrain train": "--set max_iter=1"}
    *_, trained, surgery, log = checkout.run_readme("net_spec", smaller)
    assert "Optimization Done." in log
    (accuracy,) = re.findall(r"iteration 30: loss [\d.]+, accuracy ([\d.]+)", trained)
    assert float(accuracy) > 0.6
    assert "ip1 (500, 800) -> ip1_conv (500, 50, 4, 4)" in surgery
    (one_by_one,) = re.findall(r"one by one: +(.*)", surgery)
    assert len(one_by_one.split()) == 8
    assert f"over the strip:  {one_by_one}" in surgery
    (difference,) = re.findall(r"largest difference of a probability: (\S+)", surgery)
    assert float(difference) < 1e-5


def test_notebook(checkout: Checkout) -> None:
    """Its cells run, and give what is stored with them as far as that does not depend on how long it trains."""
    path = checkout.folder / "examples/notebook/first_contact.ipynb"
    notebook = json.loads(path.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = "\n\n".join("".join(cell["source"]) for cell in cells)
    assert script.count("ITERATIONS = 200\n") == 1
    (path.parent / "cells.py").write_text(script.replace("ITERATIONS = 200\n", "ITERATIONS = 20\n"))
    said = checkout.run("python examples/notebook/cells.py")

    stored = ["".join(output["text"]) for cell in cells for output in cell["outputs"] if "text" in output]
    assert said.startswith("".join(stored[:3]))
    assert stored[3].startswith("accuracy 0.0")
    assert re.search(r"accuracy 0\.040 before, 0\.\d+ after 20 iterations", said)
    (share,) = re.findall(r"of the same class for ([\d.]+)%", said)
    assert float(share) > 80


def test_the_stored_notebook_is_of_one_run(repository: Path) -> None:
    path = repository / "examples/notebook/first_contact.ipynb"
    assert path.stat().st_size < 300_000
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, 1 + len(cells)))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "display_data"}
    assert {output["name"] for output in outputs if "name" in output} == {"stdout"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5

"""Whole networks on the simulated GPU: Caffe's figures, and training whose steps are recorded and run again."""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import BACKEND_VARIABLE, PRECISIONS, create_backend
from paratrain.data import LmdbWriter, array_to_datum
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt, read_prototxt
from paratrain.solvers import NetOptions, Solver, create_solver
from tests.integration.golden_nets import TOLERANCE, compare_net, open_nets, recorded_figures
from tests.paths import GOLDEN
from tests.simulated_gpu_path import simulated_gpu  # noqa: F401

SHAPES = {"lenet": (1, 28, 28), "cifar10_quick": (3, 32, 32)}
STEPS = 6
Event = Callable[[Solver], None]


@pytest.mark.parametrize(
    ("name", "gradient_tolerance"), [("lenet", 1e-4), ("cifar10_quick", 1e-4), ("googlenet", 1e-3)]
)
def test_a_network_agrees_with_caffe(
    name: str, gradient_tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "cupy")
    recorded = recorded_figures(name)
    train, test = open_nets(name, tmp_path)
    assert train.context.backend.name == "cupy"
    compare_net(test, recorded["TEST"], gradient_tolerance, tolerance=TOLERANCE)
    compare_net(train, recorded["TRAIN"], gradient_tolerance, tolerance=TOLERANCE)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each network an LMDB of pictures somewhat larger than it takes, in 10 classes that can be told apart."""
    folder = tmp_path_factory.mktemp("databases")
    random = np.random.default_rng(11)
    for name, (channels, height, width) in SHAPES.items():
        patterns = random.integers(0, 200, (10, channels, height + 2, width + 2))
        with LmdbWriter(folder / name) as database:
            for i in range(40):
                pixels = patterns[i % 10] + random.integers(0, 56, patterns.shape[1:])
                database.put(b"%08d" % i, array_to_datum(pixels.astype(np.uint8), i % 10).SerializeToString())
    return folder


class Training:
    """A run of some steps on a backend, and what came of it."""

    def __init__(self, databases: Path, name: str, backend: str, precision: str = "float32", *, settings: str = "",
                 records: bool = True) -> None:  # fmt: skip
        parameter = SolverParameter(
            base_lr=0.002, lr_policy="fixed", momentum=0.9, weight_decay=5e-4, max_iter=1000, random_seed=5,
            snapshot_after_train=False,
        )  # fmt: skip
        parameter.MergeFrom(parse_prototxt(settings, SolverParameter))
        parameter.net_param.CopyFrom(self._net(databases, name))
        made = create_backend(backend, precision)
        self.solver = create_solver(parameter, backend=made, net_options=NetOptions(plans_memory=True))
        if not records:
            self.solver.net.recorded_pass = None
        self.losses: list[float] = []

    @staticmethod
    def _net(databases: Path, name: str) -> NetParameter:
        """The network with data layers that cut and turn pictures, and weights that learn from the first step on."""
        net = read_prototxt(GOLDEN / "nets" / f"{name}.prototxt", NetParameter)
        layers = [layer for layer in net.layer if layer.type not in ("DummyData", "Input")]
        del net.layer[:]
        size = SHAPES[name][1]
        for phase in ("TRAIN", "TEST"):
            text = f"""layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}
                data_param {{ source: "{databases / name}" backend: LMDB batch_size: 2 }}
                transform_param {{ crop_size: {size} mirror: true scale: 0.01 mean_value: 100 }} }}"""
            net.layer.extend(parse_prototxt(text, NetParameter).layer)
        for layer in layers:
            for filler in (layer.convolution_param.weight_filler, layer.inner_product_param.weight_filler):
                filler.type = "xavier"
            if layer.type not in ("Convolution", "InnerProduct"):
                layer.ClearField("convolution_param")
                layer.ClearField("inner_product_param")
            else:
                layer.ClearField("inner_product_param" if layer.type == "Convolution" else "convolution_param")
        net.layer.extend(layers)
        return net

    def run(self, count: int = STEPS, before: dict[int, Event] | None = None) -> Training:
        for _ in range(count):
            (before or {}).get(self.solver.iter, _nothing)(self.solver)
            self.solver.step(1)
            self.losses.append(self.solver.loss)
        return self

    @property
    def weights(self) -> Any:
        return self.solver.net.parameters.data.host().copy()

    def close(self) -> None:
        self.solver.close()


def _nothing(solver: Solver) -> None:
    """Between most steps."""


def counts() -> Counter[str]:
    found: Counter[str] = importlib.import_module("simulated").counts
    return found


def bits(training: Training) -> tuple[list[float], bytes]:
    found = training.losses, training.weights.tobytes()
    training.close()
    return found


@functools.cache
def on_the_cpu(databases: Path, name: str) -> Any:
    training = Training(databases, name, "numpy").run()
    losses, weights = training.losses, training.weights
    training.close()
    return losses, weights


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_recorded_training(name: str, precision: str, databases: Path) -> None:
    """Replays give the bits of eager passes, which are those of another run; nothing is allocated; the CPU's losses."""
    training = Training(databases, name, "cupy", precision)
    training.run(4)
    recorded = training.solver.net.recorded_pass
    assert recorded is not None
    assert len(recorded._recorded) == 1
    before = counts().copy()
    training.run(STEPS - 4)
    steady = counts() - before
    assert steady["graph_launch"] == 2 * (STEPS - 4)  # the pass, and the update
    assert steady["allocate"] == steady["malloc"] == 0
    plain = bits(Training(databases, name, "cupy", precision, records=False).run())
    assert bits(training) == plain
    losses, _ = on_the_cpu(databases, name)
    limit = {"float32": 1e-5, "tf32": 2e-3}.get(precision, 2e-2)  # factors of 10 bits
    np.testing.assert_allclose(plain[0], losses, rtol=limit)
    assert len(set(losses)) == STEPS


SETTINGS = "test_iter: 1 test_interval: 2 "


def write_parameters(solver: Solver) -> None:
    """As scripts do: on the host, in place."""
    blob = solver.net.params["conv1"][0]
    blob.data[...] *= 0.5
    solver.net.params["ip1"][1].data[...] = 0.25


def read_blobs(solver: Solver) -> None:
    assert solver.net.blobs["loss"].data > 0
    assert np.isfinite(solver.net.blobs["conv2"].data).all()
    assert np.isfinite(solver.net.params["ip1"][0].diff).all()
    assert np.isfinite(solver.net.params["conv2"][0].data).all()


def write_gradients_and_blobs(solver: Solver) -> None:
    """What the next step overwrites."""
    solver.net.params["conv1"][0].diff[...] = 7
    solver.net.blobs["conv1"].data[...] = 7
    solver.net.blobs["data"].data[...] = 7


def run_forward(solver: Solver) -> None:
    """A pass of a script's own, over a batch that is missing in training then."""
    solver.net.forward_from_to()


def run_some_layers(solver: Solver) -> None:
    solver.net.forward_from_to(0, 3)


def run_some_backward(solver: Solver) -> None:
    """Which moves all blobs."""
    solver.net.backward_from_to(None, 5)
    solver.net.clear_param_diffs()


@pytest.mark.parametrize(
    ("precision", "settings", "before"),
    [
        ("float16", "iter_size: 2", {}),
        ("float32", SETTINGS + "iter_size: 2 weight_decay: 0.01", {}),
        ("bfloat16", SETTINGS, {4: write_parameters, 5: read_blobs, 6: write_gradients_and_blobs}),
        ("float32", "", {4: write_parameters, 5: read_blobs, 6: write_gradients_and_blobs}),
        ("float32", "", {4: run_forward, 7: run_some_layers}),
        ("float16", "", {3: run_some_backward, 6: run_some_backward}),
        ("float16", "clip_gradients: 0.5 type: 'Adam' base_lr: 0.001", {5: write_parameters}),
        ("float32", "debug_info: true display: 4", {}),
    ],
)
def test_what_happens_between_recorded_steps(
    precision: str, settings: str, before: dict[int, Event], databases: Path
) -> None:
    launches = counts()["graph_launch"]
    recorded = Training(databases, "lenet", "cupy", precision, settings=settings).run(9, before)
    assert counts()["graph_launch"] - launches >= 2
    eager = Training(databases, "lenet", "cupy", precision, settings=settings, records=False).run(9, before)
    assert bits(recorded) == bits(eager)


def test_resuming_goes_on_as_if_nothing_had_been(databases: Path, tmp_path: Path) -> None:
    precision, settings = "bfloat16", f"snapshot_prefix: '{tmp_path}/run' iter_size: 2 "
    straight = Training(databases, "cifar10_quick", "cupy", precision, settings=settings).run(8)
    first = Training(databases, "cifar10_quick", "cupy", precision, settings=settings).run(4)
    first.solver.snapshot()
    first.run(1)  # recorded, and then resumed
    first.solver.restore(f"{tmp_path}/run_iter_4.solverstate")
    first.losses.pop()
    second = Training(databases, "cifar10_quick", "cupy", precision, settings=settings)
    second.solver.restore(f"{tmp_path}/run_iter_4.solverstate")
    losses, weights = bits(straight)
    assert bits(first.run(4)) == (losses, weights)
    assert bits(second.run(4)) == (losses[4:], weights)

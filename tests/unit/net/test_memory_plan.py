"""Nets whose blobs share memory compute the same bits, whatever lies in memory that is not in use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.blob import SyncedMemory
from paratrain.errors import NetError, NotFiniteError
from paratrain.layers import LayerContext
from paratrain.net import Net
from paratrain.net.memory_plan import MemoryPlan
from paratrain.proto import TEST, TRAIN, NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import NetOptions, Solver, create_solver
from tests.optional import need_onednn

CONVOLUTION = """
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
"""
NORMALIZATION = """
layer {{ name: "{name}_norm" type: "BatchNorm" bottom: "{name}" top: "{name}" }}
layer {{ name: "{name}_scale" type: "Scale" bottom: "{name}" top: "{name}" scale_param {{ bias_term: true }} }}
"""
RELU = 'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}'


def every_kind_of_net(channels: int) -> str:
    """Splits, in-place layers, a residual sum, a branch through Slice and Concat, views, two losses with weights, an unread
    part, an accuracy and a silenced blob.
    """
    blocks = [
        """
        name: "all" layer { name: "data" type: "Input" top: "data" top: "label"
          input_param { shape { dim: 4 dim: 3 dim: 8 dim: 7 } shape { dim: 4 } } }
        """
    ]
    for name, bottom in (("a", "data"), ("b", "a"), ("c", "b")):
        blocks += [CONVOLUTION.format(name=name, bottom=bottom, channels=channels)]
        blocks += [NORMALIZATION.format(name=name)] if name != "b" else []
        blocks += [RELU.format(name=name)] if name != "c" else []
    half = channels // 2
    text = (
        "".join(blocks)
        + f"""
    layer {{ name: "sum" type: "Eltwise" bottom: "a" bottom: "c" top: "sum" }}
    layer {{ name: "sum_relu" type: "ReLU" bottom: "sum" top: "sum" }}
    layer {{ name: "lrn" type: "LRN" bottom: "sum" top: "lrn" }}
    layer {{ name: "slice" type: "Slice" bottom: "lrn" top: "left" top: "right" top: "unread"
      slice_param {{ slice_point: {half} slice_point: {channels - 1} }} }}
    layer {{ name: "power" type: "Power" bottom: "left" top: "power" power_param {{ scale: 2 shift: 1 }} }}
    layer {{ name: "concat" type: "Concat" bottom: "power" bottom: "right" bottom: "b" top: "concat" }}
    layer {{ name: "quiet" type: "Silence" bottom: "right" }}
    layer {{ name: "pool" type: "Pooling" bottom: "concat" top: "pool" pooling_param {{ kernel_size: 2 stride: 2 }} }}
    layer {{ name: "flat" type: "Flatten" bottom: "pool" top: "flat" }}
    layer {{ name: "again" type: "Reshape" bottom: "flat" top: "again" reshape_param {{ shape {{ dim: 0 dim: -1 }} }} }}
    """
    )
    return (
        text
        + """
    layer { name: "ip" type: "InnerProduct" bottom: "again" top: "ip"
      inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "ip_relu" type: "ReLU" bottom: "ip" top: "ip" }
    layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
    layer { name: "out" type: "InnerProduct" bottom: "ip" top: "out"
      inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "side" type: "InnerProduct" bottom: "b" top: "side"
      inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" top: "chances" }
    layer { name: "loss_2" type: "SoftmaxWithLoss" bottom: "side" bottom: "label" top: "loss_2" loss_weight: 0.3 }
    layer { name: "weighted" type: "Power" bottom: "loss_2" top: "weighted" loss_weight: 0.5 }
    layer { name: "accuracy" type: "Accuracy" bottom: "out" bottom: "label" top: "accuracy" }
    """
    )


def make_solver(backend: str, *, plans: bool, text: str, **settings: Any) -> Solver:
    if backend == "onednn":
        need_onednn()
    parameter = SolverParameter(
        base_lr=0.01, lr_policy="fixed", momentum=0.9, random_seed=1, max_iter=99, snapshot_after_train=False,
        net_param=parse_prototxt(text, NetParameter), test_iter=[1], test_interval=100, **settings,
    )  # fmt: skip
    solver = create_solver(
        parameter, backend=create_backend(backend), seed=1, net_options=NetOptions(plans_memory=plans)
    )
    for net in [solver.net, *(tester.net for tester in solver.testers if tester.net is not None)]:
        feed(net)
    return solver


def feed(net: Net) -> None:
    random = np.random.default_rng(3)
    data, label = net.blobs["data"], net.blobs["label"]
    data.data[...] = random.normal(size=data.shape)
    label.data[...] = random.integers(0, 5, label.shape)


def arena_of(net: Net | None) -> Any:
    """The arena of a net; None while its blobs have memory of their own."""
    assert net is not None and net.memory_plan is not None
    return net.memory_plan.arena


def state(solver: Solver) -> list[bytes]:
    parameters = solver.net.parameters
    arrays = [parameters.data.host(), parameters.diff.host(), parameters.statistics.host()]
    outputs = [solver.net.blobs[name].read_data(None) for name in solver.net.output_names]
    return [array.tobytes() for array in (*arrays, *outputs, np.float64(solver.loss))]


@pytest.fixture
def _garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each pass everything in the arena that is not in use becomes NaN."""
    begin_forward, begin_backward = MemoryPlan.begin_forward, MemoryPlan.begin_backward

    def spoil_all(plan: MemoryPlan, is_whole: bool) -> None:
        begin_forward(plan, is_whole)
        if plan.arena is not None:
            plan.arena.view(np.float32)[...] = np.nan

    def spoil_gradients(plan: MemoryPlan, is_whole: bool) -> None:
        begin_backward(plan, is_whole)
        if plan.arena is not None:
            values = {id(blob.data_memory) for tops in plan._net.tops for blob in tops}
            free = np.ones(plan.arena.nbytes, bool)
            for memory in plan._planned:
                if id(memory) in values and memory._in_place is not None:
                    start = memory._in_place.ctypes.data - plan.arena.ctypes.data
                    free[start : start + memory._in_place.nbytes] = False
            plan.arena[free] = 0xFF

    monkeypatch.setattr(MemoryPlan, "begin_forward", spoil_all)
    monkeypatch.setattr(MemoryPlan, "begin_backward", spoil_gradients)


@pytest.mark.usefixtures("_garbage")
@pytest.mark.parametrize("channels", [16, 20, 6])
@pytest.mark.parametrize("backend", ["numpy", "onednn"])
def test_training_gives_the_same_bits(backend: str, channels: int) -> None:
    text = every_kind_of_net(channels)
    plain, planned = (make_solver(backend, plans=plans, text=text, iter_size=2) for plans in (False, True))
    assert plain.net.memory_plan is None
    for _ in range(3):
        for solver in (plain, planned):
            solver.step(1)
        assert state(planned) == state(plain)
        plan = planned.net.memory_plan
        assert plan is not None and plan.saved_bytes > arena_of(planned.net).nbytes / 4
        results = [solver.testers[0].run() for solver in (plain, planned)]
        assert str(results[0]) == str(results[1])
    assert arena_of(planned.testers[0].net).nbytes < arena_of(planned.net).nbytes


@pytest.mark.usefixtures("_garbage")
@pytest.mark.parametrize("backend", ["numpy", "onednn"])
def test_what_the_plan_does_not_know_dissolves_it(backend: str) -> None:
    """Other shapes, only some layers, debug_info: values stay, and a plan is made again for whole passes, up to a point."""
    text = every_kind_of_net(16)
    plain, planned = (make_solver(backend, plans=plans, text=text) for plans in (False, True))
    plan = planned.net.memory_plan
    assert plan is not None
    for batch in (4, 6, 3, 4):
        for solver in (plain, planned):
            for name in ("data", "label"):
                blob = solver.net.blobs[name]
                blob.reshape(batch, *blob.shape[1:])
            feed(solver.net)
            solver.step(2)
        assert state(planned) == state(plain)
    assert arena_of(planned.net) is None
    plan._plan_count = 0
    nets = [plain.net, planned.net]
    for net in nets:
        net.forward_from_to()
        net.clear_param_diffs()
    assert arena_of(planned.net) is not None
    for net in nets:
        net.backward_from_to(None, 8)
        net.backward_from_to(7, 0)
    assert arena_of(planned.net) is None
    assert state(planned) == state(plain)
    for net in nets:
        net.forward_from_to()
        net.debug_info = True
    assert arena_of(planned.net) is not None
    for net in nets:
        net.backward_from_to()
    assert arena_of(planned.net) is None and state(planned) == state(plain)


@pytest.mark.usefixtures("_garbage")
def test_batches_may_come_in_memory_of_their_own() -> None:
    """As data layers bring them: the plan stays."""
    plain, planned = (make_solver("numpy", plans=plans, text=every_kind_of_net(6)) for plans in (False, True))
    arenas: list[Any] = []
    for step in range(5):
        for solver in (plain, planned):
            blob = solver.net.blobs["data"]
            blob.use_memory(data=SyncedMemory(blob.count))
            feed(solver.net)
            blob.data[...] += step
            solver.step(1)
        arenas.append(arena_of(planned.net))
        assert arenas[0] is not None and arenas[-1] is arenas[0]
    assert state(planned) == state(plain)


@pytest.mark.parametrize("backend", ["numpy", "onednn"])
def test_what_is_not_finite_is_found(backend: str) -> None:
    """A gradient that is not finite is looked for in the blobs of a pass whose memory others have used since."""
    messages = []
    for plans in (False, True):
        solver = make_solver(backend, plans=plans, text=every_kind_of_net(16))
        solver.step(1)
        solver.net.layers[solver.net.layer_names.index("loss")].loss_weights[0] = 1.0
        solver.net.blobs["loss"].diff[...] = np.inf
        with pytest.raises(NotFiniteError) as raised:
            solver.step(1)
        messages.append(str(raised.value))
    assert messages[0] == messages[1] and "gradient of" in messages[0]


def test_nets_whose_blobs_are_looked_at_have_no_plan() -> None:
    for more, text in (({"keeps_arrays": True}, ""), ({"shapes_only": True}, ""), ({}, "force_backward: true")):
        context = LayerContext(create_backend("numpy"), TRAIN, plans_memory=True, **more)  # type: ignore[arg-type]
        assert Net(parse_prototxt(every_kind_of_net(6) + text, NetParameter), context).memory_plan is None
    solver = make_solver("numpy", plans=True, text=every_kind_of_net(6), debug_info=True)
    assert solver.net.memory_plan is None


def test_a_net_that_fits_only_because_blobs_share_memory_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = every_kind_of_net(16).replace("dim: 4", "dim: 64")
    monkeypatch.setattr("paratrain.blob.limits._LEAST_ASKED_BYTES", 0)

    def build(plans_memory: bool) -> Net:
        return Net(
            parse_prototxt(text, NetParameter), LayerContext(create_backend("numpy"), TEST, plans_memory=plans_memory)
        )

    net = build(True)
    assert net.memory_plan is not None
    needed = net.memory_plan.needed_bytes()
    own = sum({id(blob.data_memory): blob.data_memory.count * 4 for tops in net.tops for blob in tops}.values())
    assert needed < 0.7 * own
    monkeypatch.setattr("paratrain.blob.limits.available_bytes", lambda: (needed + own) // 2)
    build(True)
    with pytest.raises(NetError, match="A smaller batch_size takes less"):
        build(False)
    monkeypatch.setattr("paratrain.blob.limits.available_bytes", lambda: needed - 1)
    with pytest.raises(NetError, match="the data of the .* blobs of network 'all'"):
        build(True)


def test_nothing_grows_after_the_first_step() -> None:
    """Arrays that a step allocates are freed in it, and are small next to the blobs."""
    import tracemalloc

    solver = make_solver("onednn", plans=True, text=every_kind_of_net(16).replace("dim: 4", "dim: 32"))
    solver.step(2)
    arena = arena_of(solver.net)
    assert arena is not None
    tracemalloc.start()
    try:
        solver.step(1)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        solver.step(2)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
    assert peak - before < arena.nbytes / 2

"""Which nets a solver's settings ask for: one to train, any number to test, and the state each is filtered by."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from paratrain import snapshot
from paratrain.activity import Activity
from paratrain.backends import Backend
from paratrain.data.options import DataOptions
from paratrain.errors import PrototxtError, SolverError
from paratrain.layers.base import Clock, LayerContext
from paratrain.net import Allocator, CopyRules, Net
from paratrain.proto import TEST, TRAIN, NetParameter, NetState, SolverParameter, read_prototxt, upgrade_net
from paratrain.solvers.ranks import Ranks
from paratrain.solvers.testing import Tester, can_be_dealt

__all__ = ["NetChoice", "NetOptions", "as_described", "build_nets", "test_net_choices", "train_net_choice"]

logger = logging.getLogger(__name__)


def as_described(parameter: NetParameter) -> NetParameter:
    """The description itself: a net to train is built as its file says."""
    return parameter


@dataclass(frozen=True)
class NetOptions:
    """How a solver's nets are built, beside what its settings say."""

    allow_python: bool = True
    """Layers of type Python may run the code that a net names."""
    keeps_arrays: bool = False
    """A blob's array stays the same from batch to batch, as scripts expect; it costs a copy of each batch."""
    plans_memory: bool = False
    """Blobs whose lives do not overlap share memory, unless the solver's debug_info, or Python, may look at them later."""
    data: DataOptions = field(default_factory=DataOptions)
    """How layers read ahead."""
    copy_rules: CopyRules = field(default_factory=CopyRules)
    """How the solver's ``weights`` are copied."""
    edit_train_net: Callable[[NetParameter], NetParameter] = as_described
    """Takes the description of the net to train, its ``state`` complete, and returns the one to build."""
    activity: Activity = field(default_factory=Activity)
    """Where the nets, and the solver, say what they are doing."""
    allocate: Allocator | None = None
    """Makes the flat arrays of the net to train; None for memory of its own."""


_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass(frozen=True)
class NetChoice:
    """A net to build: where its description comes from (for the log), how to get it, and its state."""

    source: str
    read: Callable[[], NetParameter]
    state: NetState

    def parameter(self) -> NetParameter:
        """Return the description, its ``state`` completed by the solver's. Raises PrototxtError or SolverError."""
        parameter = NetParameter()
        parameter.CopyFrom(self.read())
        state = NetState()
        state.MergeFrom(parameter.state)
        state.MergeFrom(self.state)
        parameter.state.CopyFrom(state)
        return parameter


def train_net_choice(parameter: SolverParameter) -> NetChoice:
    """Return the net to train. Raises SolverError unless exactly one field gives it."""
    given = [name for name in _TRAIN_FIELDS if parameter.HasField(name)]
    if len(given) != 1:
        found = f"gives {' and '.join(given)}" if given else "gives none of them"
        raise SolverError(
            f"a solver names the net to train by exactly one of {', '.join(_TRAIN_FIELDS)}; this one {found}"
        )
    state = NetState(phase=TRAIN)
    state.MergeFrom(parameter.train_state)
    match given[0]:
        case "net" | "train_net" as field:
            path = getattr(parameter, field)
            return NetChoice(f"from {field} file: {path}", lambda: _read(path, field), state)
        case field:
            return NetChoice(f"specified in {field}.", lambda: upgrade_net(getattr(parameter, field)), state)


def test_net_choices(parameter: SolverParameter) -> list[NetChoice]:
    """Return the nets to test, in Caffe's order: those of test_net_param, those of test_net, and for every further
    ``test_iter`` the solver's own ``net`` or ``net_param``.

    Raises SolverError where the numbers of nets, test_iter and test_state do not fit, or test_interval is missing.
    """
    sources: list[tuple[str, Callable[[], NetParameter]]] = [
        ("test_net_param", lambda given=given: upgrade_net(given))  # type: ignore[misc]
        for given in parameter.test_net_param
    ]
    sources += [
        (f"test_net file: {path}", lambda path=path: _read(path, "test_net"))  # type: ignore[misc]
        for path in parameter.test_net
    ]
    own_count = len(parameter.test_iter) - len(sources)
    generic = "net" if parameter.HasField("net") else "net_param" if parameter.HasField("net_param") else None
    if own_count < 0 or (own_count > 0 and generic is None):
        raise SolverError(
            f"test_iter is given {len(parameter.test_iter)} times for {len(sources)} test nets (test_net, test_net_param): "
            "give it once for each, and once more for each test of 'net' or 'net_param', where the solver has one"
        )
    if generic == "net":
        sources += [(f"net file: {parameter.net}", lambda: _read(parameter.net, "net"))] * own_count
    elif generic == "net_param":
        sources += [("net_param", lambda: upgrade_net(parameter.net_param))] * own_count
    if parameter.test_state and len(parameter.test_state) != len(sources):
        raise SolverError(
            f"test_state is given {len(parameter.test_state)} times for {len(sources)} test nets; "
            "give it once for each, or not at all"
        )
    if sources and parameter.test_interval <= 0:
        raise SolverError(f"there are test nets, but test_interval is {parameter.test_interval}; it must be above 0")
    if any(count <= 0 for count in parameter.test_iter):
        raise SolverError(f"test_iter must be above 0; the solver gives {', '.join(map(str, parameter.test_iter))}")
    choices = []
    for index, (source, read) in enumerate(sources):
        state = NetState(phase=TEST)
        if parameter.test_state:
            state.MergeFrom(parameter.test_state[index])
        choices.append(NetChoice(source, read, state))
    return choices


def _read(path: str, field: str) -> NetParameter:
    if not Path(path).exists():
        raise PrototxtError(f"no such file: '{path}' ('{field}' of the solver), looked up from {Path.cwd()}")
    return upgrade_net(read_prototxt(path, NetParameter))


def build_nets(
    parameter: SolverParameter,
    backend: Backend,
    clock: Clock,
    *,
    seed: int,
    rank: int,
    size: int,
    ranks: Ranks,
    options: NetOptions,
) -> tuple[Net, list[Tester]]:
    """Build the net to train, with the solver's ``weights`` in it, and the nets to test, as ``options`` say.

    The net to train reads this rank's share of the records. The batches of a net to test
    are shared by ``ranks``; where that cannot be, the net is built on the root, rank 0, alone. Raises what reading and
    building does.
    """
    choice, tests = train_net_choice(parameter), test_net_choices(parameter)
    is_root = rank == 0
    if is_root:
        logger.info("Creating training net %s", choice.source)
    everywhere = LayerContext(
        backend,
        TEST,
        seed=seed,
        activity=options.activity,
        allow_python=options.allow_python,
        keeps_arrays=options.keeps_arrays,
        plans_memory=options.plans_memory and not parameter.debug_info,
        data=options.data,
    )
    context = replace(everywhere, phase=choice.state.phase, rank=rank, size=size, clock=clock)
    nets = [Net(options.edit_train_net(choice.parameter()), context, allocate=options.allocate)]
    testers: list[Tester] = []
    try:
        paths = [path for given in parameter.weights for path in snapshot.split_weights(given)]
        snapshot.load_all_weights(nets[0], paths, options.copy_rules)
        for index, (test, batch_count) in enumerate(zip(tests, parameter.test_iter, strict=True)):
            described = test.parameter()
            is_shared = ranks.size > 1 and can_be_dealt(described)
            if not (is_root or is_shared):
                testers.append(Tester(None, batch_count, ranks, is_shared=False))
                continue
            if is_root:
                logger.info("Creating test net (#%d) specified by %s", index, test.source)
            deal = (ranks.rank, ranks.size) if is_shared else (0, 1)
            context = replace(everywhere, phase=test.state.phase, deal=deal, clock=Clock())
            nets.append(Net(described, context))
            nets[-1].debug_info = parameter.debug_info and is_root
            testers.append(Tester(nets[-1], batch_count, ranks, is_shared=is_shared))
    except BaseException:
        for net in nets:
            net.close()
        raise
    return nets[0], testers

"""Net as scripts make it: from a file, in one of pycaffe's forms."""

from __future__ import annotations

import os
from collections.abc import Sequence

from paratrain import net as core
from paratrain.layers.base import LayerContext
from paratrain.proto import TEST, TRAIN, NetParameter, read_prototxt, upgrade_net
from paratrain.pycaffe.modes import new_backend, note_made
from paratrain.pycaffe.ranks import choices
from paratrain.pycaffe.threads import take_threads
from paratrain.random import entropy

__all__ = ["Net"]

Path = str | os.PathLike[str]

_FORMS = "Net(file, phase, level=0, stages=None, weights=None), or Net(file, weights, phase)"
_NAMES = ("phase", "level", "stages", "weights")


class _AnyNet(type(core.Net)):  # type: ignore[misc]  # mypy wants a name here
    """``isinstance(solver.net, Net)`` holds for a solver's nets as well, which are made in another way."""

    def __instancecheck__(cls, instance: object) -> bool:
        return super().__instancecheck__(instance) or (cls is Net and isinstance(instance, core.Net))


class Net(core.Net, metaclass=_AnyNet):
    """``Net(file, phase, level=0, stages=None, weights=None)``: the network of a prototxt file.

    pycaffe's older form ``Net(file, weights, phase)`` works as well. Parameters have the values of their fillers until
    weights are copied in. Every blob keeps its value after ``forward()``. Raises PrototxtError, NetError, SnapshotError.
    """

    def __init__(
        self,
        network_file: Path,
        *args: object,
        phase: int | None = None,
        level: int | None = None,
        stages: Sequence[str] | None = None,
        weights: Path | None = None,
    ) -> None:
        given: dict[str, object] = {"phase": phase, "level": level, "stages": stages, "weights": weights}
        names = ("weights", "phase") if args and isinstance(args[0], (str, os.PathLike)) else _NAMES
        if len(args) > len(names):
            raise TypeError(f"{_FORMS}: {1 + len(args)} arguments are given")
        for name, value in zip(names, args, strict=False):
            if given[name] is not None:
                raise TypeError(f"{_FORMS}: {name} is given twice, {value!r} and {given[name]!r}")
            given[name] = value
        phase = _check_phase(given["phase"])
        level, stages, weights = _check_rest(given)
        parameter = upgrade_net(read_prototxt(network_file, NetParameter))
        take_threads()
        seed = entropy() if choices.seed is None else choices.seed
        backend = new_backend()
        context = LayerContext(backend=backend, phase=TEST if phase == TEST else TRAIN, seed=seed, keeps_arrays=True)
        with backend.on_device():
            super().__init__(parameter, context, level=level, stages=stages)
        note_made(self, backend)
        if weights is not None:
            self.copy_from(weights)


def _check_phase(phase: object) -> int:
    if phase is None:
        raise TypeError(f"{_FORMS}: phase is missing; give paratrain.TRAIN or paratrain.TEST")
    if not isinstance(phase, int):
        raise TypeError(f"{_FORMS}: cannot use {phase!r} as phase; give paratrain.TRAIN or paratrain.TEST")
    if phase not in (TRAIN, TEST):
        raise ValueError(f"{_FORMS}: there is no phase {phase}; give paratrain.TRAIN or paratrain.TEST")
    return int(phase)


def _check_rest(given: dict[str, object]) -> tuple[int, list[str], Path | None]:
    level, stages, weights = 0 if given["level"] is None else given["level"], given["stages"], given["weights"]
    if not isinstance(level, int):
        raise TypeError(f"{_FORMS}: cannot use {level!r} as level; give a number")
    if isinstance(stages, str) or not isinstance(stages, (Sequence, type(None))):
        raise TypeError(f"{_FORMS}: cannot use {stages!r} as stages; give a list of names")
    if not isinstance(weights, (str, os.PathLike, type(None))):
        raise TypeError(f"{_FORMS}: cannot use {weights!r} as weights; give the path of a file")
    return level, [str(stage) for stage in stages or ()], weights

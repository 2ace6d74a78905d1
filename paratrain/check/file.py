"""Checking one file, a network or a solver with its networks: everything that is wrong with it, and what it costs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from paratrain.check.damage import Damage, LayerKey, layer_keys
from paratrain.check.data_shapes import Shape
from paratrain.check.ignored import ignored_fields
from paratrain.check.nets import NetReport, check_net
from paratrain.check.solvers import history_count, net_choices, solver_problems
from paratrain.errors import ParatrainError
from paratrain.proto import TEST, TRAIN, NetParameter, NetState, SolverParameter, upgrade_net, upgrade_solver
from paratrain.proto.mend import layer_at, parse_all, top_level_names
from paratrain.proto.schema import descriptor_of
from paratrain.proto.text import read_text

__all__ = ["Report", "check_file", "is_solver"]

_LOOKED_AT = 100_000  # characters that show what a file is


@dataclass
class Report:
    """All that was found: ``problems`` make the file unfit, ``notes`` say what was read in another way than it is written."""

    kind: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    nets: list[NetReport] = field(default_factory=list)
    solver_type: str = "SGD"
    allow_python: bool = False
    """Whether layers of type Python may run the code that they name."""

    def add(self, problems: Sequence[str]) -> None:
        """Append what is not there yet: nets of several phases share most of their layers."""
        self.problems += [problem for problem in dict.fromkeys(problems) if problem not in self.problems]


def check_file(
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Shape] | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    allow_python: bool = False,
) -> Report:
    """Check a net prototxt or a solver prototxt, which its fields tell apart.

    ``shapes`` are those of blobs that data layers make, by name, for data that is not there. Paths in the file are looked up
    from the current folder, as in training. Layers of type Python are a problem unless ``allow_python`` lets the code run that
    they name. Raises PrototxtError only where the file itself cannot be opened as text.
    """
    text = read_text(path, NetParameter)
    report = Report("solver" if is_solver(text) else "network", allow_python=allow_python)
    if report.kind == "solver":
        _check_solver(report, text, str(path), shapes or {}, level, stages)
    else:
        net = _read_net(report, text, str(path))
        if net is not None:
            states = [NetState(phase=phase, level=level, stage=stages) for phase in (TRAIN, TEST)]
            titles = ["TRAIN", "TEST"]
            _check_states(report, *net, list(zip(titles, states, strict=True)), shapes or {})
    _check_given_names(report, shapes or {})
    return report


def is_solver(text: str) -> bool:
    """Whether a prototxt is a solver's: more of its outermost fields are a SolverParameter's than a NetParameter's."""
    names = top_level_names(text[:_LOOKED_AT])
    return _known_count(names, SolverParameter) > _known_count(names, NetParameter)


def _known_count(names: Sequence[str], message_type: type[Message]) -> int:
    fields = descriptor_of(message_type).fields_by_name
    return sum(name in fields for name in names)


def _read_net(report: Report, text: str, path: str) -> tuple[NetParameter, Damage] | None:
    """Return the network in today's form, and its layers that were not read whole; None where it cannot be read."""
    net, errors = parse_all(text, NetParameter, path)
    report.add([str(error) for error in errors])
    if net is None:
        return None
    damaged: dict[LayerKey, str] = {}
    keys = layer_keys(net.layer or net.layers)
    for error in errors:
        index = layer_at(text, error)
        if index is not None and index < len(keys):
            damaged[keys[index]] = f"{damaged.get(keys[index], '')} {error}"
    try:
        upgraded = upgrade_net(net, report.notes.append)
    except ParatrainError as error:
        report.add([f"{path}: {error}"])
        return None
    return upgraded, damaged


def _check_states(
    report: Report,
    net: NetParameter,
    damaged: Damage,
    states: Sequence[tuple[str, NetState]],
    shapes: Mapping[str, Shape],
) -> None:
    """Check the net in several states; those in which it has the same layers are one report."""
    count = history_count(report.solver_type)
    report.notes += [note for note in ignored_fields(net) if note not in report.notes]
    found: list[NetReport] = []
    for title, state in states:
        merged = NetState()
        merged.CopyFrom(net.state)
        merged.MergeFrom(state)
        checked = check_net(
            net,
            merged,
            title,
            given=shapes,
            damaged=damaged,
            history_count=count,
            allow_python=report.allow_python,
        )
        report.add(checked.problems)
        found.append(checked)
    if len(found) == 2 and _names(found[0]) == _names(found[1]):
        found[0].title = f"{found[0].title} and {found[1].title}"
        found.pop()
    report.nets += found


def _names(net: NetReport) -> list[tuple[str, ...]]:
    return [
        (one.parameter.name, one.parameter.type, *(str(blob and blob.shape) for blob in one.tops))
        for one in net.shaped.layers
    ]


def _check_solver(
    report: Report, text: str, path: str, shapes: Mapping[str, Shape], level: int, stages: Sequence[str]
) -> None:
    solver, errors = parse_all(text, SolverParameter, path)
    report.add([str(error) for error in errors])
    if solver is None:
        return
    try:
        solver = upgrade_solver(solver, path, report.notes.append)
    except ParatrainError as error:
        report.add([f"{path}: {error}"])
        solver.ClearField("solver_type")
    report.solver_type = solver.type
    choices, problems = net_choices(solver)
    # A field that could not be read is missed by what looks at the settings; its name has been said already.
    said = {word for error in errors for word in re.findall(r"'(\w+)'", str(error))}
    for problem in [*solver_problems(solver), *problems]:
        if said.isdisjoint(re.findall(r"\w+", problem)):
            report.add([f"{path}: {problem}"])
    read: dict[str, tuple[NetParameter, Damage] | None] = {}
    for index, (choice, file) in enumerate(choices):
        title = "TRAIN" if index == 0 else f"TEST #{index - 1}"
        if file is None:
            try:
                net: tuple[NetParameter, Damage] | None = (choice.read(), {})
            except ParatrainError as error:
                report.add([f"{path}: {error}"])
                continue
        else:
            if not Path(file).exists():
                report.add([f"{path}: no such file: '{file}', looked up from {Path.cwd()}"])
                continue
            if file not in read:
                try:
                    read[file] = _read_net(report, read_text(file, NetParameter), file)
                except ParatrainError as error:
                    report.add([str(error)])
                    read[file] = None
            net = read[file]
        if net is not None:
            state = NetState()
            state.CopyFrom(choice.state)
            if index == 0:
                state.MergeFrom(NetState(level=level, stage=stages) if level else NetState(stage=stages))
            _check_states(report, *net, [(title, state)], shapes)


def _check_given_names(report: Report, shapes: Mapping[str, Shape]) -> None:
    made = {top for net in report.nets for one in net.shaped.layers for top in one.parameter.top}
    missing = [name for name in shapes if name not in made]
    if report.nets and missing:
        report.add([f"--input-shape: no layer makes a blob named {', '.join(repr(name) for name in missing)}"])

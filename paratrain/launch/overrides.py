"""``--set FIELD=VALUE``: fields of the solver, given on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import FieldDescriptor

from paratrain.errors import PrototxtError, SolverError
from paratrain.proto import SolverParameter, parse_prototxt, upgrade_solver

__all__ = ["override"]


def override(parameter: SolverParameter, settings: Sequence[str]) -> SolverParameter:
    """Return ``parameter`` with the fields that ``settings``, each FIELD=VALUE, give instead of its own.

    A value is written as in a prototxt; quotes around a string may be left out. A field that may be repeated is given
    several times, or as [1, 2]. Raises SolverError, naming the setting.
    """
    changed = SolverParameter()
    changed.CopyFrom(parameter)
    parsed = [_parse(setting) for setting in settings]
    for given in parsed:
        for field, _ in given.ListFields():
            changed.ClearField(field.name)
    for given in parsed:
        changed.MergeFrom(given)
    return upgrade_solver(changed, None) if changed.HasField("solver_type") else changed


def _parse(setting: str) -> SolverParameter:
    name, equals, value = (part.strip() for part in setting.partition("="))
    if not equals or not name or not value:
        raise SolverError(f"--set {setting}: expected FIELD=VALUE, as in --set base_lr=0.01")
    field = SolverParameter.DESCRIPTOR.fields_by_name.get(name)
    if field is not None and field.type == FieldDescriptor.TYPE_STRING and value[0] not in "\"'[":
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    try:
        parsed = parse_prototxt(f"{name}: {value}", SolverParameter)
    except PrototxtError as error:
        place = f"{error.line}:{error.column}: " if error.line is not None else ""
        raise SolverError(f"--set {setting}: {str(error).removeprefix(place)}") from None
    found = [given.name for given, _ in parsed.ListFields()]
    if found != [name]:
        raise SolverError(f"--set {setting}: sets {', '.join(found)}; give each field a --set of its own")
    return parsed

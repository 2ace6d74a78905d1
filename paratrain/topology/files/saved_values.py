"""What `paratrain topology --save` has written, as JSON values; with sentences for files that hold something else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from paratrain.errors import TopologyError

SCHEMA = 1
AGAIN = "write it again with: paratrain topology --save FILE"


def looks_saved(content: bytes) -> bool:
    """Whether a file begins as JSON does, so that it is no text of ``nvidia-smi topo -m``."""
    return content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"


def saved_values(content: bytes, source: str) -> dict[str, Any]:
    """The values of a saved file, whose name is `source`. TopologyError if it is no JSON, or not of schema 1."""
    if not content.strip():
        raise TopologyError(f"{source}: is empty; {AGAIN}")
    if not looks_saved(content):
        raise TopologyError(
            f"{source}: is no saved plan, which would be JSON; for what nvidia-smi topo -m has printed, make one first: "
            f"paratrain topology --from {source} --save plan.json"
        )
    try:
        values = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TopologyError(
            f"{source}: is not UTF-8 from byte {error.start} on, so it is no saved plan; {AGAIN}"
        ) from None
    except json.JSONDecodeError as error:
        place = f"{source}:{error.lineno}:{error.colno}"
        raise TopologyError(f"{place}: the JSON is damaged or cut ({error.msg}); {AGAIN}") from None
    except ValueError as error:  # a number of thousands of digits
        raise TopologyError(f"{source}: the JSON cannot be read ({error}); {AGAIN}") from None
    except RecursionError:
        raise TopologyError(f"{source}: the JSON is nested too deep to be a saved plan; {AGAIN}") from None
    assert isinstance(values, dict)
    schema = values.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        found = "no schema number" if schema is None else f"schema {json.dumps(schema)[:40]}"
        raise TopologyError(f"{source}: expected a saved plan of schema {SCHEMA}, found {found}; {AGAIN}")
    return values


class Fields:
    """The fields of one JSON object, checked when they are read; `place` names the object in messages."""

    def __init__(self, values: Any, source: str, place: str) -> None:
        self._values: dict[str, Any] = values if isinstance(values, dict) else {}
        self._source = source
        self._place = place
        if not isinstance(values, dict):
            raise self.error("", "an object", values)

    def whole(self, name: str, *, least: int | None = 0) -> int:
        """A whole number, which must be there."""
        found = self.get(name)
        if not isinstance(found, int) or isinstance(found, bool) or (least is not None and found < least):
            raise self.error(name, "a whole number" + ("" if least is None else f" from {least} on"), found)
        return found

    def whole_or_none(self, name: str) -> int | None:
        """A whole number from 0 on, or None where the field is null or missing."""
        return None if self.get(name) is None else self.whole(name)

    def number_or_none(self, name: str) -> float | None:
        """A number above or equal to 0, or None where the field is null or missing."""
        found = self.get(name)
        if found is None:
            return None
        if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found <= sys.float_info.max:
            raise self.error(name, "a number from 0 on", found)
        return float(found)

    def text(self, name: str) -> str:
        """A text; empty where the field is null or missing."""
        found = self.get(name)
        if found is None:
            return ""
        if not isinstance(found, str):
            raise self.error(name, "a text", found)
        return found

    def flag_or_none(self, name: str) -> bool | None:
        """True, false, or None where the field is null or missing."""
        found = self.get(name)
        if found is not None and not isinstance(found, bool):
            raise self.error(name, "true, false or null", found)
        return found

    def objects(self, name: str) -> list[Fields]:
        """A list of objects, which must be there."""
        found = self.get(name)
        if not isinstance(found, list):
            raise self.error(name, "a list", found)
        path = f"{self._place}.{name}" if self._place else name
        return [Fields(item, self._source, f"{path}[{place}]") for place, item in enumerate(found)]

    def object(self, name: str) -> Fields:
        """An object, which must be there."""
        return Fields(self.get(name), self._source, f"{self._place}.{name}" if self._place else name)

    def parsed(self, name: str, parse: Callable[[str], Any]) -> Any:
        """What `parse` makes of a text, with the place in front of what it complains of."""
        try:
            return parse(self.text(name))
        except TopologyError as error:
            raise TopologyError(f"{self._source}: {self._path(name)}: {error}") from error

    def get(self, name: str) -> Any:
        """The value, whatever it is; None where it is missing."""
        return self._values.get(name)

    def error(self, name: str, expected: str, found: Any) -> TopologyError:
        """The complaint about one field."""
        text = "nothing" if found is None else json.dumps(found, default=str)[:40]
        return TopologyError(f"{self._source}: {self._path(name)}: expected {expected}, found {text}; {AGAIN}")

    def _path(self, name: str) -> str:
        return ".".join(part for part in (self._place, name) if part) or "the file"

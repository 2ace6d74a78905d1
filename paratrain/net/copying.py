"""Which layers weights go to, and the table of what became of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from paratrain.errors import SnapshotError

__all__ = ["MISMATCH_ADVICE", "CopyRules", "CopyTable"]

logger = logging.getLogger(__name__)

MISMATCH_ADVICE = (
    "; to train this layer anew, give it another name, or let `paratrain train` leave out what does not fit by "
    "--allow-mismatch"
)
_MOST_ROWS = 400


@dataclass(frozen=True)
class CopyRules:
    """How the layers of a file of weights are matched with those of a net: by name."""

    renames: Mapping[str, str] = field(default_factory=dict)
    """From the name in the file to the name in the net."""
    allow_mismatch: bool = False
    """Leave out layers whose shapes differ, where it would be an error."""

    def target(self, name: str, source_names: Iterable[str]) -> tuple[str | None, str]:
        """Return the net's name for layer ``name`` of the file; or None, and why it is not wanted."""
        if name in self.renames:
            return self.renames[name], ""
        for old, new in self.renames.items():
            if new == name and old in source_names:
                return None, f"'{old}' is renamed to it"
        return name, ""

    def check_source(self, source_names: Iterable[str]) -> None:
        """Raise SnapshotError for a layer that is to be renamed and is in none of the files."""
        known = set(source_names)
        for old, new in self.renames.items():
            if old not in known:
                raise SnapshotError(f"--rename {old}:{new}: the weights have no layer '{old}'; {_known(known)}")

    def check_net(self, layer_names: Iterable[str]) -> None:
        """Raise SnapshotError for a layer that is to be renamed to one that the net has not."""
        known = set(layer_names)
        for old, new in self.renames.items():
            if new not in known:
                raise SnapshotError(f"--rename {old}:{new}: the network has no layer '{new}'; {_known(known)}")


class CopyTable:
    """What became of each layer, in the log, when all is copied."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, str, str]] = []
        self._taken: set[str] = set()
        self._left: set[str] = set()

    def take(self, source: str, target: str, shapes: Iterable[tuple[int, ...]]) -> None:
        """Layer ``source`` of the file has gone to ``target``."""
        as_name = "" if source == target else f" as '{target}'"
        self._rows.append((source, "taken", ", ".join(map(str, shapes)) + as_name))
        self._taken.add(target)

    def leave(self, source: str, why: str, target: str | None = None) -> None:
        """Layer ``source`` of the file was not wanted, or does not fit the net's layer ``target``."""
        self._rows.append((source, "left", why))
        if target is not None:
            self._left.add(target)

    def log(self, layer_names: Iterable[str]) -> None:
        """Log a line for each layer of the file, and for those of ``layer_names``, the net's, that keep what they had."""
        rows = list(self._rows)
        rows += [
            (name, "kept", "the weights do not fit" if name in self._left else "not in the weights")
            for name in layer_names
            if name not in self._taken
        ]
        width = max((len(name) for name, _, _ in rows), default=0)
        left = sum(what == "left" for _, what, _ in rows)
        logger.info(
            "Weights of %d layers taken, of %d left; %d layers of the net keep theirs",
            len(self._taken), left, len(rows) - left - len(self._taken),
        )  # fmt: skip
        for name, what, detail in rows[:_MOST_ROWS]:
            logger.info("    %-*s  %-5s  %s", width, name, what, detail)
        if len(rows) > _MOST_ROWS:
            logger.info("    and %d more", len(rows) - _MOST_ROWS)


def _known(names: set[str], most: int = 8) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"known: {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")

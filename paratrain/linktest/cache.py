"""What was found about the links of this machine's GPUs, kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paratrain.linktest.results import LinkResult, from_values, to_values
from paratrain.topology.machine import Machine

__all__ = ["LinkCache", "cache_folder", "machine_key"]

logger = logging.getLogger(__name__)

SCHEMA = 1
COMMAND_LINE = Path("/proc/cmdline")


def cache_folder(environ: Mapping[str, str]) -> Path:
    """paratrain's folder below ``XDG_CACHE_HOME``, or below ``~/.cache`` where that is not set or not absolute."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "paratrain"


def machine_key(machine: Machine, command_line: Path = COMMAND_LINE) -> dict[str, Any]:
    """What the findings are true for: the driver, the GPUs in their places, and how the kernel was started (its IOMMU, say).

    A GPU is its bus id and its UUID: a home folder may serve several machines of one kind.
    """
    try:
        started = command_line.read_bytes()
    except OSError:
        started = b""
    return {
        "driver_version": machine.driver_version,
        "gpus": sorted([gpu.bus_id, gpu.uuid] for gpu in machine.gpus),
        "kernel_command_line_sha256": hashlib.sha256(started).hexdigest(),
    }


@dataclass(frozen=True)
class LinkCache:
    """The file for one machine. Its pairs are bus ids, so that it holds whatever the GPUs' numbers are.

    JSON: ``{"schema": 1, "key": ..., "results": [...]}`` with the key of `machine_key`, and results as
    `paratrain.linktest.results.to_values` gives them, with bus ids for ``a`` and ``b``.
    """

    path: Path
    key: dict[str, Any]
    machine: Machine

    @classmethod
    def of(cls, machine: Machine, environ: Mapping[str, str] | None = None) -> LinkCache | None:
        """The cache for a machine; None where its driver or a GPU does not say who it is."""
        if not machine.driver_version or not machine.gpus or not all(gpu.bus_id for gpu in machine.gpus):
            return None
        key = machine_key(machine)
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cls(cache_folder(os.environ if environ is None else environ) / f"links-{name}.json", key, machine)

    def read(self) -> list[LinkResult]:
        """What was found before, [] if nothing was; a file that is damaged or of another schema is told of and left out."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            logger.warning("%s: cannot be read (%s); the links count as not tested", self.path, error.strerror)
            return []
        index_of = {gpu.bus_id: gpu.index for gpu in self.machine.gpus}
        try:
            values = json.loads(content)
            if values["schema"] != SCHEMA or values["key"] != self.key:
                raise ValueError("it is of another version or machine")
            return [_numbered(result, index_of) for result in values["results"]]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            logger.warning("%s: is damaged (%s); the links count as not tested", self.path, error)
            return []

    def write(self, results: Iterable[LinkResult]) -> None:
        """Add what was found; newer findings replace older ones of the same pair and transport. Failure is only told of."""
        bus_id = {gpu.index: gpu.bus_id for gpu in self.machine.gpus}
        merged = {(result.pair, result.transport): result for result in [*self.read(), *results]}
        rows = [{**to_values(result), "a": bus_id[result.a], "b": bus_id[result.b]} for result in merged.values()]
        text = json.dumps({"schema": SCHEMA, "key": self.key, "results": rows}, indent=1) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=self.path.name, suffix=".new", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                Path(name).replace(self.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            logger.warning("%s: cannot be written (%s); the links will be tested again", self.path, error.strerror)


def _numbered(values: dict[str, Any], index_of: dict[str, int]) -> LinkResult:
    a, b = sorted((index_of[values["a"]], index_of[values["b"]]))
    return from_values({**values, "a": a, "b": b})

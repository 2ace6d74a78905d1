"""Which plans were found to be the quickest, kept in the user's cache folder: later runs take the same and give the same bits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Choices"]

logger = logging.getLogger(__name__)

SCHEMA = 1


class Choices:
    """The names of plans by task, for one version of cuDNN and one kind of GPU.

    JSON: ``{"schema": 1, "choices": {SETTING: {TASK: NAME}}}``, where the setting names the version, the GPU and what plans were
    allowed. Whoever chose first is right: ranks that measure at the same time agree on one name.
    """

    def __init__(self, setting: str, path: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._setting = setting
        self._path = path or _cache_folder(os.environ if environ is None else environ) / "cudnn-plans.json"

    def get(self, task: str) -> str | None:
        """The name of the plan that was chosen for a task; None where none was."""
        return self._read().get(self._setting, {}).get(task)

    def settle(self, task: str, name: str) -> str:
        """Note that ``name`` was found to be the quickest for a task, and return what was noted first."""
        try:
            with self._locked():
                everything = self._read()
                chosen = everything.setdefault(self._setting, {}).setdefault(task, name)
                handle, written = tempfile.mkstemp(dir=self._path.parent)
                with os.fdopen(handle, "w") as file:
                    json.dump({"schema": SCHEMA, "choices": everything}, file, indent=1, sort_keys=True)
                Path(written).replace(self._path)
                return chosen
        except OSError as error:
            logger.warning("%s: the quickest plans cannot be noted there (%s)", self._path, error.strerror)
            return name

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            content = json.loads(self._path.read_text("utf-8"))
            if content["schema"] == SCHEMA:
                found: dict[str, dict[str, str]] = content["choices"]
                return found
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s cannot be read; plans are measured anew", self._path)
        return {}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _cache_folder(environ: Mapping[str, str]) -> Path:
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "paratrain"

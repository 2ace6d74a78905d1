"""The file ``caffe.py`` by which ``import caffe`` finds paratrain in every program of an environment."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import sysconfig
from pathlib import Path

from paratrain.as_caffe import path as shipped
from paratrain.errors import ParatrainError

__all__ = ["find_real_caffe", "install", "remove", "status"]

_SHIPPED = Path(next(iter(shipped.__path__))) / "caffe.py"


def install() -> str:
    """Write the file and return a sentence that says so. Raises ParatrainError beside a real Caffe, and for a folder that
    cannot be written.
    """
    real = find_real_caffe()
    if real is not None:
        raise ParatrainError(
            f"there is a Caffe in this environment, {real}, and it stays what 'import caffe' finds: run single scripts by "
            "python -m paratrain.as_caffe SCRIPT, or use another environment"
        )
    file = _file()
    try:
        file.write_bytes(_SHIPPED.read_bytes())
    except OSError as error:
        raise ParatrainError(
            f"{file}: cannot be written ({error.strerror}); use an environment of your own (python -m venv), or run single "
            "scripts by python -m paratrain.as_caffe SCRIPT"
        ) from None
    return f"'import caffe' finds paratrain from now on, wherever {sys.executable} runs: {file}"


def remove() -> str:
    """Remove the file, and return a sentence. Raises ParatrainError where it is somebody else's, or cannot be removed."""
    file = _file()
    if not file.exists():
        return f"'import caffe' did not find paratrain: there is no {file}"
    if not _is_ours(file):
        raise ParatrainError(f"{file}: is not paratrain's, and stays")
    try:
        file.unlink()
    except OSError as error:
        raise ParatrainError(f"{file}: cannot be removed ({error.strerror})") from None
    return f"'import caffe' does not find paratrain any more: removed {file}"


def status() -> str:
    """Return a sentence that says what ``import caffe`` finds in this environment."""
    real, file = find_real_caffe(), _file()
    if real is not None:
        return f"'import caffe' finds a Caffe: {real}"
    if file.exists() and _is_ours(file):
        return f"'import caffe' finds paratrain: {file}"
    return "'import caffe' finds nothing; python -m paratrain.as_caffe --install lets it find paratrain"


def find_real_caffe() -> str | None:
    """Return where a module ``caffe`` lies that is not paratrain's; None where there is none."""
    for entry in sys.path:
        spec = importlib.machinery.PathFinder.find_spec("caffe", [entry or os.curdir])
        if spec is None:
            continue
        if spec.origin is None:  # a folder without __init__.py: the source of Caffe beside the script, not a module
            continue
        if not _is_ours(Path(spec.origin)):
            return spec.origin
    return None


def _file() -> Path:
    return Path(sysconfig.get_paths()["purelib"]) / "caffe.py"


def _is_ours(file: Path) -> bool:
    try:
        return b"paratrain.as_caffe" in file.read_bytes()
    except OSError:
        return False

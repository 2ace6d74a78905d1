"""From a path to a run: which kind of file it is, and which files of a folder are a run's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from paratrain.errors import DataError
from paratrain.tools.runs.log import is_log, read_log
from paratrain.tools.runs.metrics import is_csv, is_json_lines, read_csv, read_metrics
from paratrain.tools.runs.run import Run

__all__ = ["open_run"]

_BEGINNING = 65536  # characters in which a file shows what it is
_MOST_FILES = 2000

Reader = Callable[[Path], Run]


def open_run(path: str | Path) -> Run:
    """Read a run from its log, its metrics, or the folder that holds them.

    Of a folder the newest metrics are read, and warnings from the newest log beside them; without metrics the newest log. Where
    the folder itself holds neither, the folders in it are looked through. Raises DataError where there is no such file, where
    it is something else, and where it holds no iteration.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    reader = _reader_of(path)
    if reader is None:
        raise DataError(
            f"{path}: is neither a log in Caffe's form nor metrics; expected what `paratrain train` prints, or what it "
            "writes with --metrics"
        )
    return reader(path)


def _reader_of(path: Path) -> Reader | None:
    """What reads a file; None where nothing does. Raises DataError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_BEGINNING)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise DataError(f"{path}: is empty; the run has written nothing yet")
    beginning = content.decode("utf-8", errors="replace")
    if b"\0" in content:
        return None
    for fits, reader in ((is_json_lines, read_metrics), (is_csv, read_csv), (is_log, read_log)):
        if fits(beginning):
            return reader
    return None


def _open_folder(folder: Path) -> Run:
    metrics: list[Path] = []
    logs: list[Path] = []
    failures: list[DataError] = []
    for files in (
        _files(folder),
        (file for inner in sorted(folder.iterdir()) if inner.is_dir() for file in _files(inner)),
    ):
        for file in files:
            try:
                reader = _reader_of(file)
            except DataError:
                continue
            if reader is not None and reader is not read_log:
                metrics.append(file)
            elif reader is read_log:
                logs.append(file)
        if metrics or logs:
            break
    run: Run | None = None
    for file in _newest_first(metrics):
        run = run or _try(file, failures)
    for file in _newest_first(logs):
        log = _try(file, failures)
        if log is not None and run is not None:
            run.warnings += [text for text in log.warnings if text not in run.warnings]
            run.facts = log.facts | run.facts
            run.paths.append(file)
        run = run or log
        if log is not None:
            break
    if run is None:
        raise (
            failures[0]
            if failures
            else DataError(
                f"{folder}: no run is in this folder; expected metrics (--metrics) or a log (--log-dir) of `paratrain train`"
            )
        )
    run.name = folder.resolve().name
    return run


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that may be a run's: neither links, of which glog makes one to its newest log, nor data."""
    for file in sorted(folder.iterdir())[:_MOST_FILES]:
        if file.is_file() and not file.is_symlink() and (file.suffix in _SUFFIXES or ".log." in file.name):
            yield file


_SUFFIXES = (".jsonl", ".json", ".csv", ".log", ".txt", ".out", ".err", "")


def _try(file: Path, failures: list[DataError]) -> Run | None:
    try:
        return open_run(file)
    except DataError as error:
        failures.append(error)
        return None


def _newest_first(files: list[Path]) -> list[Path]:
    """Of one minute, JSON lines come first: they hold more than tables do."""
    return sorted(files, key=lambda file: (-(file.stat().st_mtime // 60), file.suffix == ".csv", file.name))

"""``python -m paratrain.as_caffe script.py [arguments]``: runs a script in which ``import caffe`` finds paratrain."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import runpy
import signal
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from paratrain import as_caffe
from paratrain.as_caffe import alias
from paratrain.as_caffe import path as shipped
from paratrain.errors import ParatrainError

_USAGE = """python -m paratrain.as_caffe SCRIPT [ARGUMENT ...]
       python -m paratrain.as_caffe -m MODULE [ARGUMENT ...]
       python -m paratrain.as_caffe --install | --remove | --status"""


def main(arguments: Sequence[str]) -> None:
    """Run a script or a module as Python would, or see to the alias."""
    parser = argparse.ArgumentParser(
        usage=_USAGE, description="Run a script written for pycaffe: 'import caffe' finds paratrain."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="run a module of this name as a script")
    what.add_argument(
        "--install",
        action="store_true",
        help="write a small file caffe.py into this environment, so that 'import caffe' finds paratrain in all its programs; "
        "never beside a real Caffe",
    )
    what.add_argument("--remove", action="store_true", help="remove that file")
    what.add_argument("--status", action="store_true", help="say what 'import caffe' finds in this environment")
    parser.add_argument("script", nargs="?", metavar="SCRIPT", help="the script, and what it is given")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, action in (("install", alias.install), ("remove", alias.remove), ("status", alias.status)):
        if getattr(options, name):
            if options.script is not None:
                parser.error(f"--{name} takes no script")
            try:
                sys.stdout.write(f"{action()}\n")
            except ParatrainError as error:
                parser.exit(1, f"paratrain: {error}\n")
            return
    if options.module:
        _run([options.module[0], *options.module[1:]], is_module=True)
    elif options.script is not None and not Path(options.script).exists():
        parser.exit(2, f"paratrain: no such script: {options.script} (looked up from {Path.cwd()})\n")
    elif options.script is not None:
        _run([options.script, *options.arguments], is_module=False)
    else:
        parser.error("give a script")


def _run(argv: list[str], *, is_module: bool) -> None:
    name = argv[0]
    as_caffe.take_name()
    sys.argv[:] = argv
    # Python has put the current folder there, for -m paratrain.as_caffe.
    sys.path[0] = str(Path.cwd()) if is_module else str(Path(name).resolve().parent)
    sys.path.insert(1, next(iter(shipped.__path__)))  # for processes that the script starts
    try:
        if is_module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            _run_file(Path.cwd() / name)
    except SystemExit:
        raise
    except BaseException as error:
        _end(error)


def _run_file(file: Path) -> None:
    """Run a file as the main module, which stays that to the end of the process, as threads and exit handlers expect."""
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=str(file), __builtins__=builtins)
    sys.modules["__main__"] = module
    with io.open_code(str(file)) as stream:
        code = compile(stream.read(), str(file), "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102, this is what it is for


def _end(error: BaseException) -> NoReturn:
    """Report an error as Python does for a script that it runs itself: without the frames of what has run it."""
    error.__traceback__ = _own_part(error.__traceback__)
    sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit(1)


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the script's own first frame on; None where it has not begun (it cannot be parsed)."""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename != __file__ and "runpy" not in code.co_filename:
            return trace
        trace = trace.tb_next
    return None


if __name__ == "__main__":
    main(sys.argv[1:])

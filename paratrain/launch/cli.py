"""The ``paratrain`` command: finds the verb, runs it, and turns errors into one message and an exit code.

Exit codes: 0 done, 1 an error (its message is on stderr), 2 a command that cannot be understood, 75 ended
because another rank or a host was lost or stuck (docs/watching.md), 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from paratrain import __version__
from paratrain.errors import ParatrainError
from paratrain.threads import load_numpy

__all__ = ["main"]

# Each verb is a module of this package with add_parser(subparsers); only the one that is asked for is imported.
_VERBS = {
    "train": "train a network from a solver prototxt",
    "launch": "start mpirun and its ranks, and go on from the newest snapshot after a failure",
    "test": "score a network with trained weights",
    "time": "time each layer of a network",
    "check": "say what is wrong with a net or a solver, and what it costs",
    "summarize": "show a net as a table: layers, shapes, parameters, multiply-adds",
    "plot": "draw loss, accuracy, learning rate, speed and where the time goes",
    "report": "make one HTML page of a run",
    "parse_log": "make tables of a training log, as Caffe's parse_log",
    "draw": "draw a network: layers and blobs",
    "classify": "say what images show, by a trained net",
    "detect": "say what windows of images show, by a trained net",
    "extract_features": "write what blobs of a net hold for records, as databases",
    "upgrade_net": "bring an old network file to today's form",
    "upgrade_solver": "bring an old solver file to today's form",
    "export": "write a network as an ONNX model, or its weights as NumPy arrays or safetensors",
    "convert_weights": "bring weights from one kind of file to another",
    "convert_imageset": "make a database of the images that a list names",
    "convert_folder": "make databases of a folder that holds a folder for each class",
    "convert_mnist": "make a database of MNIST's own files",
    "convert_cifar": "make databases of CIFAR-10 or CIFAR-100",
    "compute_image_mean": "compute the mean image of a database",
    "data": "show what a database, an HDF5 file or a list of images holds",
    "device_query": "show what the driver says of each GPU",
    "topology": "show how the GPUs are linked, and the tree that ranks would form",
}

# Those that compute: NumPy is loaded with care for them, since its threads are made when it is loaded.
_COMPUTING = ("train", "test", "time", "export", "classify", "detect", "extract_features")

_EXAMPLES = """\
examples:
  paratrain train solver.prototxt
  mpirun -n 4 paratrain train solver.prototxt
  paratrain test -model net.prototxt -weights lenet_iter_5000.caffemodel -iterations 100
  paratrain time -model net.prototxt
  paratrain train --help      (every verb has a help of its own)
"""

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name; the process's own where None); return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except SystemExit as leaving:
        return _exit_code(leaving.code)
    except ParatrainError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # nobody reads on, as in `paratrain ... | head`
        return EXIT_ERROR
    except MemoryError as error:
        return _fail(f"out of memory: {error}" if str(error) else "out of memory")
    except OSError as error:
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None))
    finally:
        _drop_broken_pipes()


def _run(arguments: list[str]) -> int:
    verb = next((word for word in arguments if not word.startswith("-")), None)
    if verb in _COMPUTING:
        load_numpy()
    parser = _parser(verb)
    if not arguments:
        parser.print_help()
        return 0
    if verb is not None and verb not in _VERBS:
        parser.error(f"unknown verb '{verb}'; known: {', '.join(_VERBS)}")
    parsed = parser.parse_args(arguments)
    if parsed.verb is None:
        parser.error(f"a verb is missing: {', '.join(_VERBS)}")
    parsed.command = arguments
    result: Any = parsed.run(parsed)
    sys.stdout.flush()
    return int(result)


def _parser(verb: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paratrain",
        description=textwrap.dedent("Train Caffe networks on many processors, with nothing to compile."),
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"paratrain {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, summary in _VERBS.items():
        if name == verb:
            importlib.import_module(f"paratrain.launch.{name}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _fail(message: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"paratrain: {message}", file=sys.stderr, flush=True)
    return EXIT_ERROR


def _drop_broken_pipes() -> None:
    """Python flushes both streams when it ends, and would complain where nobody reads them any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError, AttributeError):
            pass


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    return code if isinstance(code, int) else _fail(str(code))

"""``paratrain extract_features``: what blobs of a net hold for records, as databases."""

from __future__ import annotations

import argparse
import contextlib
import logging

from paratrain.launch import converting, image_options, options
from paratrain.tools.databases import BACKENDS, stored_bytes
from paratrain.tools.features import check_blobs, extract_features
from paratrain.tools.work import Work

__all__ = ["add_parser", "run"]

logger = logging.getLogger(__name__)

_ORDER = "WEIGHTS NET BLOB1[,BLOB2...] DB1[,DB2...] BATCHES lmdb|leveldb [CPU|GPU] [DEVICE_ID=0]"

_EXAMPLES = """\
  paratrain extract_features pretrained.caffemodel net.prototxt conv,ip1 conv_lmdb,ip1_lmdb 2 lmdb CPU
  paratrain extract_features --weights pretrained.caffemodel --model net.prototxt --blobs ip1 --output features_lmdb --batches 2
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb and its options."""
    parser = options.new_parser(
        subparsers,
        "extract_features",
        "write what blobs of a net hold for records, as databases",
        "Run the TEST phase of a net with data layers over some batches and write blobs to databases: a record for each "
        "sample, with the keys and values that Caffe's extract_features writes. Arguments are given in Caffe's order, or "
        "by name.",
        _EXAMPLES,
    )
    parser.add_argument("words", nargs="*", metavar="ARGUMENT", help=f"Caffe's order: {_ORDER}")
    options.add(parser, "weights", metavar="FILE", help="the trained weights")
    options.add(parser, "model", metavar="NET", help="the net prototxt, with data layers")
    parser.add_argument("--blobs", metavar="A,B", help="the blobs to write")
    parser.add_argument("--output", metavar="DB1,DB2", help="the databases to make, one for each blob")
    parser.add_argument("--batches", metavar="N", help="how many batches to run")
    parser.add_argument("--db", choices=BACKENDS, help="the kind of database (default: lmdb)")
    image_options.add_computing(parser)
    options.add_data(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """Extract the features; return the exit code. Raises ParatrainError."""
    _take_words(arguments)
    try:
        batch_count = options.positive(arguments.batches)
    except (ValueError, argparse.ArgumentTypeError):
        arguments.parser.error(f"the number of batches is a whole number above 0, not '{arguments.batches}'")
    blobs, databases = _listed(arguments.blobs), _listed(arguments.output)
    with (
        converting.tool_run(),
        contextlib.closing(image_options.open_net(arguments, arguments.model, arguments.weights)) as net,
    ):
        check_blobs(net, blobs)  # before a bar is shown
        with Work(batch_count, "batches", log_every=0) as work:
            counts = extract_features(net, blobs, databases, batch_count, arguments.db or "lmdb", work)
    for name, path, count in zip(blobs, databases, counts, strict=True):
        print(f"{name}: {count:,} records written to {path}, {stored_bytes(path):,} bytes")
    print(work.speed())
    return 0


def _take_words(arguments: argparse.Namespace) -> None:
    """Put what is given in Caffe's order under the names; leave with a usage message where something is missing."""
    names = ("weights", "model", "blobs", "output", "batches", "db")
    words, required = arguments.words, names[:5]
    fail = arguments.parser.error
    if words:
        if any(getattr(arguments, name) is not None for name in names):
            fail("give the arguments in Caffe's order or by name, not both")
        if not len(names) <= len(words) <= len(names) + 2:
            fail(f"{len(words)} arguments are given; expected {_ORDER}")
        for name, word in zip(names, words, strict=False):
            setattr(arguments, name, word)
        mode, number = [*words[len(names) :], "", ""][:2]
        if mode not in ("", "CPU", "GPU"):
            fail(f"'{mode}': expected CPU or GPU")
        arguments.cpu = arguments.cpu or mode == "CPU"
        if mode == "GPU":
            arguments.gpu = number.removeprefix("DEVICE_ID=") or True
        if arguments.db not in BACKENDS:
            fail(f"unknown kind of database '{arguments.db}'; known: {', '.join(BACKENDS)}")
    missing = [f"--{name}" for name in required if getattr(arguments, name) is None]
    if missing:
        fail(f"{', '.join(missing)} missing; or give, in Caffe's order, {_ORDER}")


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]

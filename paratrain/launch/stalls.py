"""The options about ranks that wait for each other, and the start of watching them."""

from __future__ import annotations

import argparse
import math

from paratrain.activity import Activity
from paratrain.comm.communicator import Communicator
from paratrain.comm.watch import watch_ranks
from paratrain.watching.settings import WatchSettings

__all__ = ["activity_of", "add_stalls", "start_watching"]


def add_stalls(parser: argparse.ArgumentParser) -> None:
    """Add ``--stall-warn`` and ``--stall-abort``."""
    parser.add_argument(
        "--stall-warn",
        type=_seconds,
        default=WatchSettings.warn_s,
        metavar="SECONDS",
        help="when a rank has waited longer for another, say for which and where that one is "
        f"(default: {WatchSettings.warn_s:g}; 0: never)",
    )
    parser.add_argument(
        "--stall-abort",
        type=_seconds,
        default=WatchSettings.abort_s,
        metavar="SECONDS",
        help="end all ranks when one has waited longer, and the one that it waits for has not moved as long "
        f"(default: {WatchSettings.abort_s:g}; 0: never)",
    )


def start_watching(arguments: argparse.Namespace, communicator: Communicator, snapshot_prefix: str) -> None:
    """Have all ranks watched, as the options say. All ranks call it."""
    settings = WatchSettings(
        warn_s=arguments.stall_warn, abort_s=arguments.stall_abort, snapshot_prefix=snapshot_prefix
    )
    watch_ranks(communicator, Activity(), settings)


def activity_of(communicator: Communicator) -> Activity:
    """Where this rank is to say what it is doing."""
    return Activity() if communicator.watch is None else communicator.watch.activity


def _seconds(text: str) -> float:
    """A number from 0 on, for argparse."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds; 0 is for never")
    return value

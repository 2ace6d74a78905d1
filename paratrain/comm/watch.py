"""The ranks of a communicator agree to be watched."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from paratrain.activity import Activity
from paratrain.comm import patience
from paratrain.comm.communicator import Communicator
from paratrain.errors import CommunicationError
from paratrain.watching.settings import WatchSettings
from paratrain.watching.start import start_helper
from paratrain.watching.watch import Watch

__all__ = ["watch_ranks"]

logger = logging.getLogger(__name__)


def watch_ranks(communicator: Communicator, activity: Activity, settings: WatchSettings) -> None:
    """Have all ranks watched from now on, each where its ``activity`` says that it is; one rank alone is not.

    All ranks of the processes of a job call it, once. Where watching is not possible, a warning says why and the run goes on.
    """
    if communicator.size == 1:
        return
    nodes = communicator.node_of_rank
    node = nodes[communicator.rank]
    token = communicator.broadcast_object(secrets.token_hex(16))
    answer: dict[str, Any] = {}
    if communicator.local_rank == 0:
        try:
            answer = start_helper(
                node=node,
                node_count=max(nodes) + 1,
                local_count=communicator.local_size,
                rank_count=communicator.size,
                token=token,
                settings=settings,
            )
        except CommunicationError as error:
            logger.warning("The ranks of this host are not watched: %s", error)
    answers = communicator.allgather_objects(answer)
    helper, hub = answers[nodes.index(node)], answers[0]
    if not helper:
        return
    try:
        watch = Watch(communicator.rank, activity, helper, hub if "port" in hub else None, token)
    except OSError as error:
        logger.warning("Rank %d is not watched: its watcher cannot be reached (%s)", communicator.rank, error)
        return
    communicator.watch = watch
    patience.tell_waits(watch.wait)

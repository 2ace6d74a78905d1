"""One rank alone: no MPI, no messages."""

from __future__ import annotations

from typing import NoReturn

from paratrain.comm.communicator import Array, Communicator, Request
from paratrain.errors import CommunicationError


class LocalCommunicator(Communicator):
    """Rank 0 of 1. Collective operations are nothing to do, and there is nobody to send to."""

    def __init__(self) -> None:
        super().__init__(rank=0, node_of_rank=[0])

    def isend(self, array: Array, destination: int, tag: int = 0) -> Request:
        """CommunicationError: there is no other rank."""
        raise self._alone("send to", destination)

    def ireceive(self, array: Array, source: int, tag: int = 0) -> Request:
        """CommunicationError: there is no other rank."""
        raise self._alone("receive from", source)

    def check_all_present(self, action: str) -> None:
        """Nothing: there is only this rank."""

    def abort(self, code: int) -> NoReturn:
        """Leave through SystemExit, so that files are closed on the way."""
        raise SystemExit(code)

    def close(self) -> None:
        """Nothing is held."""

    def _alone(self, action: str, peer: int) -> CommunicationError:
        return CommunicationError(f"rank 0 of 1: asked to {action} rank {peer}, but it is the only rank")

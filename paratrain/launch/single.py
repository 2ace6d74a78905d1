"""What ``test`` and ``time`` share: one process, one net from a file."""

from __future__ import annotations

import argparse
import logging

from paratrain.backends import create_backend
from paratrain.errors import CommunicationError
from paratrain.launch.abort import agree, connect
from paratrain.launch.device import choose_cpu
from paratrain.layers.base import LayerContext
from paratrain.log import init_log
from paratrain.net import Net
from paratrain.proto import NetParameter, Phase, read_prototxt, upgrade_net
from paratrain.random import entropy

__all__ = ["open_net"]

logger = logging.getLogger(__name__)


def open_net(arguments: argparse.Namespace, phase: Phase) -> Net:
    """Start the log, choose the device, and build the net of ``-model`` in ``phase``, without trained weights.

    Ends the process where mpirun has started several. Raises DeviceError, PrototxtError, NetError.
    """
    communicator = connect()
    if communicator.size > 1:
        alone = (
            f"'paratrain {arguments.verb}' runs in one process, and {communicator.size} were started; leave mpirun out"
        )
        agree(communicator, CommunicationError(alone))
    init_log()
    logger.info("Use CPU. (%s)", choose_cpu(arguments.gpu, arguments.cpu, gpu_mode=True))
    parameter = upgrade_net(read_prototxt(arguments.file or arguments.model, NetParameter), logger.info)
    context = LayerContext(create_backend(), phase, seed=entropy(), allow_python=arguments.allow_python)
    return Net(parameter, context, level=arguments.level, stages=arguments.stage)

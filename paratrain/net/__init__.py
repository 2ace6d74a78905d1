"""Nets: layers wired together by the names of their blobs."""

from paratrain.net.copying import CopyRules
from paratrain.net.net import Net
from paratrain.net.parameters import Allocator, ParameterEntry, Parameters

__all__ = ["Allocator", "CopyRules", "Net", "ParameterEntry", "Parameters"]

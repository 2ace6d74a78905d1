"""Blobs: the arrays that flow between layers, and the memory behind them."""

from paratrain.blob.blob import Blob
from paratrain.blob.blob_vector import BlobVector
from paratrain.blob.gradient_memory import GradientMemory, GradientSlice
from paratrain.blob.memory_slice import MemorySlice, whole_block
from paratrain.blob.synced_memory import Arrangement, Device, Head, Memory, SyncedMemory

__all__ = [
    "Arrangement",
    "Blob",
    "BlobVector",
    "Device",
    "GradientMemory",
    "GradientSlice",
    "Head",
    "Memory",
    "MemorySlice",
    "SyncedMemory",
    "whole_block",
]

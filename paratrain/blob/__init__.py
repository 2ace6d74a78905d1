"""Blobs: the arrays that flow between layers, and the memory behind them."""

from paratrain.blob.blob import Blob
from paratrain.blob.synced_memory import Arrangement, Device, Head, Memory, MemorySlice, SyncedMemory

__all__ = ["Arrangement", "Blob", "Device", "Head", "Memory", "MemorySlice", "SyncedMemory"]

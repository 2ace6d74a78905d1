"""Blobs: the arrays that flow between layers, and the memory behind them."""

from paratrain.blob.blob import Blob
from paratrain.blob.synced_memory import Device, Head, Memory, MemorySlice, SyncedMemory

__all__ = ["Blob", "Device", "Head", "Memory", "MemorySlice", "SyncedMemory"]

"""Stands in for NVIDIA's package ``cuda``: a finder of libraries, and a cuBLAS that computes on the host."""

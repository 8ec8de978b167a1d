"""Graphs of nodes, and the loop IR that kernels are written in."""

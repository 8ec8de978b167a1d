"""Gradients as functions from graphs to graphs."""

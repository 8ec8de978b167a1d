"""The programs: what they are, how fast they must be, and a small form of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bench.models import gpt, recurrent, small, vision
from bench.models.draws import Draws
from bench.models.program import Program


class Entry(NamedTuple):
    """``goal``: how many times as fast as PyTorch it must be. ``steps``: in a round of timing."""

    make: Callable[..., Program]
    goal: float
    steps: int
    text: str
    reduced: dict[str, Any]


_TINY = gpt.Size(depth=2, width=16, heads=2, length=12, vocabulary=29)

PROGRAMS: dict[str, Entry] = {
    "two_layer": Entry(
        small.TwoLayer, 2.0, 100, "two-layer net by hand, batch 64, 1000-100-10",
        {"batch": 8, "inputs": 30, "hidden": 12, "rate": 1e-4, "batches": 1}),
    "mlp": Entry(
        small.mlp, 4.0, 50, "MLP 784-512-256-10, batch 128, Adam",
        {"batch": 16, "widths": (20, 24, 12, 10), "rate": 0.01, "batches": 1}),
    "lenet": Entry(
        small.lenet, 2.2, 10, "LeNet (20, 50, 500), batch 64, momentum",
        {"batch": 4, "channels": (3, 4), "hidden": 10, "batches": 1}),
    "resnet18": Entry(
        vision.resnet18, 1.3, 1, "ResNet-18 at 32x32, batch 32, momentum",
        {"batch": 3, "side": 16, "width": 4, "batches": 1}),
    "resnet50": Entry(
        vision.resnet50, 1.5, 1, "ResNet-50 at 224x224, batch 4, training",
        {"batch": 3, "side": 32, "width": 4, "classes": 5, "depths": (1, 2), "batches": 1}),
    "resnet50_inference": Entry(
        vision.resnet50_inference, 1.7, 3, "ResNet-50 inference, batch 1",
        {"side": 32, "width": 4, "classes": 5, "depths": (1, 2), "batches": 1}),
    "mobilenet_inference": Entry(
        vision.mobilenet_inference, 5.5, 5, "MobileNet v2 inference, batch 1",
        {"side": 32, "last": 24, "classes": 5, "batches": 1,
         "table": ((1, 8, 1, 1), (2, 12, 2, 2), (2, 12, 1, 1))}),
    "gpt": Entry(
        gpt.Writing, 2.4, 1, "GPT of 4 layers, d 256, T 128, batch 8, AdamW",
        {"size": _TINY, "batch": 2, "rate": 0.01, "batches": 1}),
    "gpt_generate": Entry(
        gpt.Generating, 3.0, 1, "the same GPT writing 64 tokens, no cache",
        {"size": _TINY, "count": 6}),
    "lstm": Entry(
        recurrent.LSTM, 2.0, 1, "LSTM of 2 layers, d 256, T 64, batch 16",
        {"width": 8, "length": 6, "batch": 3, "vocabulary": 19, "rate": 0.01,
         "batches": 1}),
    "gru": Entry(
        recurrent.GRU, 3.0, 8, "GRU cell in plain code, lengths 20 to 60",
        {"inputs": 5, "hidden": 8, "batch": 3, "lengths": (2, 4), "rate": 0.02, "batches": 2}),
    "tree_lstm": Entry(
        recurrent.TreeLSTM, 1.8, 2, "recursive TreeLSTM d 128, 32 random trees",
        {"width": 8, "trees": 3, "words": 4, "vocabulary": 19, "rate": 0.02, "batches": 2}),
    "chain": Entry(
        small.Chain, 6.0, 3, "gelu, layer norm, dropout, softmax, 4096x1024",
        {"rows": 24, "columns": 40}),
    "vae": Entry(
        small.VAE, 3.0, 30, "VAE on 784 inputs, batch 128",
        {"batch": 6, "pixels": 20, "hidden": 12, "code": 3, "rate": 0.01, "batches": 1}),
}  # fmt: skip


def make(name: str, draws: Draws, is_reduced: bool = False) -> Program:
    """The program of that name, in its small form if asked."""
    entry = PROGRAMS[name]
    return entry.make(draws, **entry.reduced if is_reduced else {})

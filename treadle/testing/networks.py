"""Small networks of several kinds, with batches to train them on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from treadle.base.record import Record
from treadle.nn import (
    LSTM,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2d,
    Module,
    ModuleList,
    ReLU,
    Sequential,
)
from treadle.nn import functional as F
from treadle.tensor.creation import arange, from_numpy
from treadle.tensor.tensor import Tensor
from treadle.testing.layouts import Place

_TOKENS = 11


class Task(Record):
    """A network, and the loss of a batch that is drawn from a generator."""

    net: Module
    loss: Callable[[np.random.Generator], Tensor]


def lenet(place: Place = from_numpy) -> Task:
    """Convolutions, pooling, batch norm, dropout and linear layers over images.

    ``place`` makes a tensor of a batch, here as in all networks.
    """
    net = Sequential(
        Conv2d(1, 6, 5, padding=2), BatchNorm2d(6), ReLU(), MaxPool2d(2),
        Conv2d(6, 10, 3), MaxPool2d(2), ReLU(), Flatten(),
        Linear(90, 24), ReLU(), Dropout(0.4), Linear(24, 10),
    )  # fmt: skip

    def loss(rng: np.random.Generator) -> Tensor:
        images = place(rng.normal(size=(32, 1, 16, 16)).astype(np.float32))
        return CrossEntropyLoss()(net(images), place(rng.integers(0, 10, 32)))

    return Task(net, loss)


class _Block(Module):
    """Causal self-attention and a feed-forward part, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.qkv, self.proj = Linear(width, 3 * width), Linear(width, width)
        self.rise, self.fall = Linear(width, 4 * width), Linear(4 * width, width)
        self.dropout = Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width)."""
        n, t, width = x.shape
        q, k, v = (
            part.reshape(n, t, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
        x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(n, t, width)))
        return x + self.dropout(self.fall(F.gelu(self.rise(self.norm2(x)))))


class _GPT(Module):
    """Tokens to scores of the next token; the table of tokens is used at both ends."""

    def __init__(self, width: int, heads: int, depth: int, length: int) -> None:
        super().__init__()
        self.tokens, self.places = Embedding(_TOKENS, width), Embedding(length, width)
        self.blocks = ModuleList([_Block(width, heads) for _ in range(depth)])
        self.norm = LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) -> (N, T, tokens)."""
        x = self.tokens(tokens) + self.places(arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


class _CharLSTM(Module):
    """Tokens to scores of the next token by two layers of LSTM."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.tokens = Embedding(_TOKENS, width)
        self.lstm = LSTM(width, hidden, num_layers=2, dropout=0.2, batch_first=True)
        self.out = Linear(hidden, _TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) -> (N, T, tokens)."""
        return self.out(self.lstm(self.tokens(tokens))[0])


def _next_token(net: Module, batch: int, length: int, place: Place) -> Task:
    """Predicting every token from those before it."""

    def loss(rng: np.random.Generator) -> Tensor:
        text = place(rng.integers(0, _TOKENS, (batch, length + 1)))
        scores = net(text[:, :-1]).reshape(-1, _TOKENS)
        return F.cross_entropy(scores, text[:, 1:].reshape(-1))

    return Task(net, loss)


def gpt(place: Place = from_numpy) -> Task:
    """A transformer that reads text, with attention, layer norm, gelu and a shared table."""
    return _next_token(_GPT(16, 2, 2, 20), 28, 20, place)


def lstm(place: Place = from_numpy) -> Task:
    """A recurrent network over text; its rows (time, batch) are more than a block of products."""
    return _next_token(_CharLSTM(8, 12), 28, 20, place)


NETWORKS: dict[str, Callable[[Place], Task]] = {"lenet": lenet, "gpt": gpt, "lstm": lstm}

__all__ = ["NETWORKS", "Task"]

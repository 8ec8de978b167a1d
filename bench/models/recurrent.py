"""Recurrent and recursive networks: an LSTM, a GRU cell in plain tensor code, a TreeLSTM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.models.draws import Draws
from bench.models.framework import F, nn, torch
from bench.models.program import Training

_CLASSES = 5


class _Words(nn.Module):
    """Tokens to scores of the next token by layers of LSTM."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, text: Any) -> Any:
        return self.out(self.lstm(self.tokens(text))[0])


class LSTM(Training):
    """Predicting every token from those before it, with Adam."""

    def __init__(self, draws: Draws, width: int = 256, length: int = 64, batch: int = 16,
                 vocabulary: int = 5000, layers: int = 2, rate: float = 1e-3,
                 batches: int = 8) -> None:  # fmt: skip
        data = [(draws.integers(vocabulary, batch, length + 1),) for _ in range(batches)]
        self.vocabulary = vocabulary
        super().__init__(draws, _Words(vocabulary, width, layers), "Adam", data, lr=rate)

    def loss(self, text: Any) -> Any:
        scores = self.net(text[:, :-1])
        return F.cross_entropy(scores.view(-1, self.vocabulary), text[:, 1:].reshape(-1))


class _Cell(nn.Module):
    """A GRU cell as its formula says it."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3 * hidden, inputs))
        self.u = nn.Parameter(torch.zeros(2 * hidden, hidden))
        self.v = nn.Parameter(torch.zeros(hidden, hidden))
        self.b = nn.Parameter(torch.zeros(3 * hidden))

    def forward(self, x: Any, h: Any) -> Any:
        """(N, inputs), (N, hidden) -> (N, hidden)."""
        xr, xz, xn = (x @ self.w.t() + self.b).chunk(3, 1)
        hr, hz = (h @ self.u.t()).chunk(2, 1)
        r = torch.sigmoid(xr + hr)
        z = torch.sigmoid(xz + hz)
        n = torch.tanh(xn + (r * h) @ self.v.t())
        return (1 - z) * n + z * h


class _Reader(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = _Cell(inputs, hidden)
        self.out = nn.Linear(hidden, _CLASSES)


class GRU(Training):
    """A Python loop over sequences of random lengths, with Adam."""

    def __init__(self, draws: Draws, inputs: int = 64, hidden: int = 128, batch: int = 32,
                 lengths: tuple[int, int] = (20, 60), rate: float = 1e-3,
                 batches: int = 64) -> None:  # fmt: skip
        self.hidden = hidden
        data = [
            (
                draws.normal(int(draws.rng.integers(lengths[0], lengths[1] + 1)), batch, inputs),
                draws.integers(_CLASSES, batch),
            )
            for _ in range(batches)
        ]
        super().__init__(draws, _Reader(inputs, hidden), "Adam", data, lr=rate)

    def loss(self, x: Any, labels: Any) -> Any:
        h = x.new_zeros(x.shape[1], self.hidden)
        for t in range(x.shape[0]):
            h = self.net.cell(x[t], h)
        return F.cross_entropy(self.net.out(h), labels)

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        self.net.cell = compiler(self.net.cell)  # the loop's length is another at each step


Tree = tuple[Any, Any] | int  # two subtrees, or the place of a word


class _TreeCells(nn.Module):
    """A binary TreeLSTM (Tai et al.)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.leaf = nn.Linear(width, 3 * width)
        self.join = nn.Linear(2 * width, 5 * width)
        self.out = nn.Linear(width, _CLASSES)

    def at_leaf(self, word: Any) -> tuple[Any, Any]:
        """The state (h, c) of a word."""
        i, o, u = self.leaf(word).chunk(3, 1)
        c = torch.sigmoid(i) * torch.tanh(u)
        return torch.sigmoid(o) * torch.tanh(c), c

    def at_node(self, left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
        """The state of a node from those of its two children."""
        gates = self.join(torch.cat([left[0], right[0]], 1))
        i, f1, f2, o, u = gates.chunk(5, 1)
        c = torch.sigmoid(i) * torch.tanh(u)
        c = c + torch.sigmoid(f1) * left[1] + torch.sigmoid(f2) * right[1]
        return torch.sigmoid(o) * torch.tanh(c), c


class TreeLSTM(Training):
    """Random trees, one at a time by recursion; one update after all of them."""

    def __init__(self, draws: Draws, width: int = 128, trees: int = 32, words: int = 24,
                 vocabulary: int = 1000, rate: float = 1e-3,
                 batches: int = 16) -> None:  # fmt: skip
        data = []
        for _ in range(batches):
            sizes = draws.rng.integers(2, words + 1, trees).tolist()
            forest = [_random_tree(draws.rng, 0, size) for size in sizes]
            tokens = [draws.integers(vocabulary, size) for size in sizes]
            labels = [draws.integers(_CLASSES, 1) for _ in sizes]
            data.append((list(zip(forest, tokens, labels, strict=True)),))
        super().__init__(draws, _TreeCells(vocabulary, width), "Adam", data, lr=rate)

    def state(self, tree: Tree, words: Any) -> tuple[Any, Any]:
        """The state of a tree, from the leaves up."""
        if isinstance(tree, int):
            return self.net.at_leaf(words[tree : tree + 1])
        return self.net.at_node(self.state(tree[0], words), self.state(tree[1], words))

    def loss(self, forest: list[tuple[Tree, Any, Any]]) -> Any:
        total = 0.0
        for tree, tokens, label in forest:
            h, _ = self.state(tree, self.net.tokens(tokens))
            total = total + F.cross_entropy(self.net.out(h), label)
        return total / len(forest)

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        self.net.at_leaf = compiler(self.net.at_leaf)
        self.net.at_node = compiler(self.net.at_node)


def _random_tree(rng: np.random.Generator, first: int, count: int) -> Tree:
    """A tree over the words from ``first`` on, cut at random places."""
    if count == 1:
        return first
    left = int(rng.integers(1, count))
    return _random_tree(rng, first, left), _random_tree(rng, first + left, count - left)

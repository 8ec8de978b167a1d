"""Step 10: a recurrent network that learns to write, letter by letter.

It reads the documentation of Python's standard library (a real text that is always at hand) and
predicts each next letter; what it writes in the end has learned words, indentation and brackets.
"""

import argparse
import inspect
import logging
import random
import textwrap

import numpy as np

import treadle
from treadle import nn, optim
from treadle.nn import functional as F


def text():
    """The docstrings of a few modules, one after the other."""
    found = []
    for module in (argparse, inspect, logging, random, textwrap):
        for name, thing in sorted(vars(module).items()):
            if callable(thing) and getattr(thing, "__module__", "") == module.__name__:
                found.append(f"{name}: {inspect.getdoc(thing) or ''}\n\n")
    return "".join(letter for letter in "".join(found) if letter == "\n" or " " <= letter <= "~")


class Writer(nn.Module):
    def __init__(self, num_letters, width=64):
        super().__init__()
        self.embedding = nn.Embedding(num_letters, width)
        self.lstm = nn.LSTM(width, 2 * width, batch_first=True)
        self.output = nn.Linear(2 * width, num_letters)

    def forward(self, letters, state=None):
        h, state = self.lstm(self.embedding(letters), state)  # (n, t) -> (n, t, 2 * width)
        return self.output(h), state  # (n, t, num_letters)


def write(model, alphabet, start, length):
    """Goes on from ``start``, taking the next letter as probable as the network finds it."""
    generator = treadle.Generator().manual_seed(0)
    written, state = start, None
    letters = treadle.tensor([[alphabet.index(letter) for letter in start]])
    with treadle.no_grad():
        for _ in range(length):
            scores, state = model(letters, state)
            chances = (scores[0, -1] / 0.5).softmax(0)
            letters = treadle.multinomial(chances, 1, generator=generator)[None]
            written += alphabet[letters.item()]
    return written


def main(steps=1500, num_rows=16, length=32):
    treadle.manual_seed(0)
    source = text()
    alphabet = sorted(set(source))
    numbers = np.array([alphabet.index(letter) for letter in source])
    rng = np.random.default_rng(0)

    model = Writer(len(alphabet))
    optimizer = optim.Adam(model.parameters(), lr=0.005)
    losses = []
    for step in range(1, steps + 1):
        starts = rng.integers(0, len(numbers) - length - 1, num_rows)
        rows = treadle.tensor(np.stack([numbers[s : s + length + 1] for s in starts]))
        scores, _ = model(rows[:, :-1])
        loss = F.cross_entropy(scores.flatten(0, 1), rows[:, 1:].flatten())
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(write(model, alphabet, "Return ", 200))
    return losses


if __name__ == "__main__":
    main()

"""Step 11: a network in the shape of its input.

A TreeLSTM reads expressions such as ``(3 - (1 + 4))`` along their parse trees and tells whether the
value is above zero. Every expression is a network of its own; all share their weights.
"""

import random

import treadle
from treadle import nn, optim
from treadle.nn import functional as F

DIGITS = 10
OPERATORS = "+-"


def expression(die, depth):
    """A digit, or (operator, left, right), at most ``depth`` operators deep."""
    if depth == 0 or die.random() < 0.2:
        return die.randrange(DIGITS)
    return die.choice(OPERATORS), expression(die, depth - 1), expression(die, depth - 1)


def value(tree):
    if isinstance(tree, int):
        return tree
    operator, left, right = tree
    return value(left) + value(right) if operator == "+" else value(left) - value(right)


class TreeLSTM(nn.Module):
    """A cell that has two predecessors, with a gate to forget each (Tai et al., 2015)."""

    def __init__(self, width):
        super().__init__()
        self.digits = nn.Embedding(DIGITS, 2 * width)
        self.operators = nn.Embedding(len(OPERATORS), 5 * width)
        self.gates = nn.Linear(2 * width, 5 * width)
        self.output = nn.Linear(width, 2)

    def node(self, tree):
        """The states (h, c) of a tree, both (width,)."""
        if isinstance(tree, int):
            h, c = self.digits.weight[tree].chunk(2)
            return h.tanh(), c
        operator, left, right = tree
        (h1, c1), (h2, c2) = self.node(left), self.node(right)
        gates = self.gates(treadle.cat([h1, h2])) + self.operators.weight[OPERATORS.index(operator)]
        i, f1, f2, o, u = gates.chunk(5)
        c = i.sigmoid() * u.tanh() + f1.sigmoid() * c1 + f2.sigmoid() * c2
        return o.sigmoid() * c.tanh(), c

    def forward(self, trees):
        return self.output(treadle.stack([self.node(tree)[0] for tree in trees]))


def accuracy(model, die, count=200):
    """The share of fresh expressions whose sign is told."""
    trees = [expression(die, 3) for _ in range(count)]
    with treadle.no_grad():
        told = model(trees).argmax(1).tolist()
    return sum(bool(t) == (value(tree) > 0) for t, tree in zip(told, trees, strict=True)) / count


def main(steps=400, num_trees=8):
    treadle.manual_seed(0)
    die = random.Random(0)
    model = TreeLSTM(32)
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for step in range(1, steps + 1):
        trees = [expression(die, 3) for _ in range(num_trees)]
        labels = treadle.tensor([int(value(tree) > 0) for tree in trees])
        loss = F.cross_entropy(model(trees), labels)
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = accuracy(model, random.Random(1))
    print(f"of 200 new expressions {share:.0%} are told")
    return losses, share


if __name__ == "__main__":
    main()

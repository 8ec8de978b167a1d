"""Step 12: a network assembled for each question.

A picture is a grid of nine cells with coloured shapes in them. A question such as "how many cells
are red and round" is a program, ``("count", ("and", ("find", "red"), ("find", "round")))``, and
for each the small networks of its words are put together (Andreas et al., 2016). No word is ever
taught alone: only whole answers are.
"""

import random

import numpy as np

import treadle
from treadle import nn, optim
from treadle.nn import functional as F

COLOURS = ("red", "green", "blue")
SHAPES = ("round", "square", "star")
WORDS = COLOURS + SHAPES
CELLS = 9
ANSWERS = ["no", "yes", *map(str, range(CELLS + 1))]
FEATURES = 12


def picture(rng, looks):
    """What is in each cell, and how it looks: (9, FEATURES), noisy."""
    cells = [(COLOURS[rng.integers(3)], SHAPES[rng.integers(3)]) for _ in range(CELLS)]
    seen = np.stack([looks[WORDS.index(c)] + looks[WORDS.index(s)] for c, s in cells])
    return cells, seen + 0.05 * rng.normal(size=seen.shape)


def question(die):
    """A question as nested tuples."""
    word = ("find", die.choice(WORDS))
    kind = die.randrange(3)
    if kind == 1:
        word = ("and", ("find", die.choice(COLOURS)), ("find", die.choice(SHAPES)))
    elif kind == 2:
        word = ("not", word)
    return die.choice(("exists", "count")), word


def true_answer(query, cells):
    """What is right, by looking."""

    def holds(part, cell):
        if part[0] == "find":
            return part[1] in cell
        if part[0] == "not":
            return not holds(part[1], cell)
        return holds(part[1], cell) and holds(part[2], cell)

    number = sum(holds(query[1], cell) for cell in cells)
    return str(number) if query[0] == "count" else "yes" if number else "no"


class ModuleNetwork(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.find = nn.ModuleDict({
            word: nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, 1))
            for word in WORDS
        })  # fmt: skip
        self.ends = nn.ModuleDict({
            kind: nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, len(ANSWERS)))
            for kind in ("exists", "count")
        })  # fmt: skip

    def cells(self, part, image):
        """How much each cell is meant: (9,), from 0 to 1."""
        if part[0] == "find":
            return self.find[part[1]](image)[:, 0].sigmoid()
        if part[0] == "not":
            return 1 - self.cells(part[1], image)
        return self.cells(part[1], image) * self.cells(part[2], image)

    def forward(self, query, image):
        return self.ends[query[0]](self.cells(query[1], image).sum().reshape(1))


def examples(rng, die, looks, count):
    """Pictures with a question and its answer each."""
    for _ in range(count):
        cells, image = picture(rng, looks)
        query = question(die)
        yield query, treadle.tensor(image, dtype=treadle.float32), true_answer(query, cells)


def main(steps=600, num_questions=16):
    treadle.manual_seed(0)
    rng, die = np.random.default_rng(0), random.Random(0)
    looks = rng.normal(size=(len(WORDS), FEATURES))
    model = ModuleNetwork()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for step in range(1, steps + 1):
        asked = list(examples(rng, die, looks, num_questions))
        scores = treadle.stack([model(query, image) for query, image, _ in asked])
        answers = treadle.tensor([ANSWERS.index(answer) for _, _, answer in asked])
        loss = F.cross_entropy(scores, answers)
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with treadle.no_grad():
        right = [
            ANSWERS[model(query, image).argmax().item()] == answer
            for query, image, answer in examples(rng, die, looks, 200)
        ]
    share = sum(right) / len(right)
    print(f"of 200 new questions {share:.0%} are answered right")
    return losses, share


if __name__ == "__main__":
    main()

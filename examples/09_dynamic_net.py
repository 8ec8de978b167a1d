"""Step 9: a network that is a different one in every step.

``forward`` is plain Python, so it may loop: here one hidden layer is used again zero to three
times, as a die decides. The gradients of all its uses add up in the one weight.
"""

import random

import numpy as np

import treadle
from treadle import nn, optim


class DynamicNet(nn.Module):
    def __init__(self, num_inputs, num_hidden, num_outputs):
        super().__init__()
        self.input = nn.Linear(num_inputs, num_hidden)
        self.middle = nn.Linear(num_hidden, num_hidden)
        self.output = nn.Linear(num_hidden, num_outputs)

    def forward(self, x, repeats):
        h = self.input(x).relu()  # (64, 1000) -> (64, 100)
        for _ in range(repeats):
            h = self.middle(h).relu()  # (64, 100) -> (64, 100)
        return self.output(h)  # (64, 100) -> (64, 10)


def main(steps=500, learning_rate=1e-4):
    treadle.manual_seed(0)
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(64, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(64, 10)), dtype=treadle.float32)

    model = DynamicNet(1000, 100, 10)
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    die = random.Random(0)

    losses = []
    for step in range(1, steps + 1):
        loss = loss_fn(model(x, repeats=die.randint(0, 3)), y)
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


if __name__ == "__main__":
    main()

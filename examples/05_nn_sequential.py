"""Step 5: layers from ``treadle.nn`` instead of bare matrices.

A layer holds its own parameters, so the network is one object. Its weights are set to those of the
earlier steps here (and it has no biases), so that the losses are the same too.
"""

import numpy as np

import treadle
from treadle import nn


def main(steps=500, learning_rate=1e-6):
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(64, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(64, 10)), dtype=treadle.float32)

    model = nn.Sequential(
        nn.Linear(1000, 100, bias=False),  # (64, 1000) -> (64, 100)
        nn.ReLU(),
        nn.Linear(100, 10, bias=False),  # (64, 100) -> (64, 10)
    )
    with treadle.no_grad():
        # A linear layer keeps its weight as (outputs, inputs).
        model[0].weight.copy_(treadle.tensor(rng.normal(scale=0.5, size=(1000, 100))).t())
        model[2].weight.copy_(treadle.tensor(rng.normal(scale=0.5, size=(100, 10))).t())
    loss_fn = nn.MSELoss(reduction="sum")

    losses = []
    for step in range(1, steps + 1):
        loss = loss_fn(model(x), y)
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        model.zero_grad()
        loss.backward()
        with treadle.no_grad():
            for parameter in model.parameters():
                parameter -= learning_rate * parameter.grad
    return losses


if __name__ == "__main__":
    main()

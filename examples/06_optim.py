"""Step 6: an optimizer makes the updates.

``optimizer.step()`` changes all parameters by their gradients, here by the rule of Adam, which
suits each parameter's step to the size of its gradients.
"""

import numpy as np

import treadle
from treadle import nn, optim


def main(steps=500, learning_rate=1e-4):
    treadle.manual_seed(0)
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(64, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(64, 10)), dtype=treadle.float32)

    model = nn.Sequential(
        nn.Linear(1000, 100),  # (64, 1000) -> (64, 100)
        nn.ReLU(),
        nn.Linear(100, 10),  # (64, 100) -> (64, 10)
    )
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)

    losses = []
    for step in range(1, steps + 1):
        loss = loss_fn(model(x), y)
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


if __name__ == "__main__":
    main()

"""Step 8: a data set in batches.

A ``DataLoader`` shuffles the examples anew in every epoch and hands them out in batches of 64, made
by threads beside the training. There are 640 examples, so an epoch has 10 steps.
"""

import numpy as np

import treadle
from treadle import nn, optim
from treadle.utils.data import DataLoader, TensorDataset


def main(steps=500, learning_rate=1e-4):
    treadle.manual_seed(0)
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(640, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(640, 10)), dtype=treadle.float32)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True, num_workers=2)

    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)

    losses = []
    while True:
        for inputs, targets in loader:  # (64, 1000), (64, 10)
            if len(losses) == steps:
                return losses
            loss = loss_fn(model(inputs), targets)
            losses.append(loss.item())
            if len(losses) % 100 == 0:
                print(f"step {len(losses)}: loss {losses[-1]:.6g}")

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()

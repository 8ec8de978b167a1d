"""Step 7: a module of one's own.

``__init__`` names the layers and ``forward`` says in plain Python what happens to the input. The
weights are set to those of the earlier steps once more, and plain gradient descent (SGD) updates
them, so the losses are the same as well.
"""

import numpy as np

import treadle
from treadle import nn, optim


class TwoLayerNet(nn.Module):
    def __init__(self, num_inputs, num_hidden, num_outputs):
        super().__init__()
        self.hidden = nn.Linear(num_inputs, num_hidden, bias=False)
        self.output = nn.Linear(num_hidden, num_outputs, bias=False)

    def forward(self, x):
        h = self.hidden(x).relu()  # (64, 1000) -> (64, 100)
        return self.output(h)  # (64, 100) -> (64, 10)


def main(steps=500, learning_rate=1e-6):
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(64, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(64, 10)), dtype=treadle.float32)

    model = TwoLayerNet(1000, 100, 10)
    with treadle.no_grad():
        model.hidden.weight.copy_(treadle.tensor(rng.normal(scale=0.5, size=(1000, 100))).t())
        model.output.weight.copy_(treadle.tensor(rng.normal(scale=0.5, size=(100, 10))).t())
    loss_fn = nn.MSELoss(reduction="sum")
    optimizer = optim.SGD(model.parameters(), lr=learning_rate)

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

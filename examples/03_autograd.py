"""Step 3: Treadle works the gradients out.

``requires_grad=True`` says whose gradients are wanted; ``loss.backward()`` adds them to ``w1.grad``
and ``w2.grad``. Only the forward pass is left to write.
"""

import numpy as np

import treadle


def main(steps=500, learning_rate=1e-6):
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(64, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(64, 10)), dtype=treadle.float32)
    w1 = treadle.tensor(
        rng.normal(scale=0.5, size=(1000, 100)), dtype=treadle.float32, requires_grad=True
    )
    w2 = treadle.tensor(
        rng.normal(scale=0.5, size=(100, 10)), dtype=treadle.float32, requires_grad=True
    )

    losses = []
    for step in range(1, steps + 1):
        y_pred = x.mm(w1).clamp(min=0).mm(w2)  # (64, 1000) -> (64, 100) -> (64, 10)
        loss = (y_pred - y).pow(2).sum()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        loss.backward()

        # The update is no part of the network: no gradient flows through it.
        with treadle.no_grad():
            w1 -= learning_rate * w1.grad
            w2 -= learning_rate * w2.grad
            w1.grad.zero_()  # backward() adds to what is there
            w2.grad.zero_()
    return losses


if __name__ == "__main__":
    main()

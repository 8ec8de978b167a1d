"""Step 2: tensors instead of NumPy arrays; the gradients are still worked out by hand.

A tensor behaves like an array, but its operations are recorded and run on kernels that Treadle
generates for this machine. ``loss.item()`` asks for a number, and so everything it needs is run.
"""

import numpy as np

import treadle


def main(steps=500, learning_rate=1e-6):
    rng = np.random.default_rng(0)
    x = treadle.tensor(rng.normal(size=(64, 1000)), dtype=treadle.float32)
    y = treadle.tensor(rng.normal(size=(64, 10)), dtype=treadle.float32)
    w1 = treadle.tensor(rng.normal(scale=0.5, size=(1000, 100)), dtype=treadle.float32)
    w2 = treadle.tensor(rng.normal(scale=0.5, size=(100, 10)), dtype=treadle.float32)

    losses = []
    for step in range(1, steps + 1):
        # Forward: from the inputs to the loss.
        h = x.mm(w1)  # (64, 100)
        h_relu = h.clamp(min=0)  # (64, 100)
        y_pred = h_relu.mm(w2)  # (64, 10)
        loss = (y_pred - y).pow(2).sum()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        # Backward: the same way back, by the chain rule.
        grad_y_pred = 2 * (y_pred - y)  # (64, 10)
        grad_w2 = h_relu.t().mm(grad_y_pred)  # (100, 10)
        grad_h = grad_y_pred.mm(w2.t())  # (64, 100)
        grad_h[h < 0] = 0
        grad_w1 = x.t().mm(grad_h)  # (1000, 100)

        # Downhill by a small step.
        w1 -= learning_rate * grad_w1
        w2 -= learning_rate * grad_w2
    return losses


if __name__ == "__main__":
    main()

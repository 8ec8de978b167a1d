"""Step 1: a network of two layers in NumPy, with its gradients worked out by hand.

64 examples of 1000 inputs each go through 100 hidden units with ReLU to 10 outputs; the loss is the
sum of the squared errors. All later programs of this folder train the same network, each with one
more piece of Treadle.
"""

import numpy as np


def main(steps=500, learning_rate=1e-6):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 1000)).astype(np.float32)
    y = rng.normal(size=(64, 10)).astype(np.float32)
    w1 = rng.normal(scale=0.5, size=(1000, 100)).astype(np.float32)
    w2 = rng.normal(scale=0.5, size=(100, 10)).astype(np.float32)

    losses = []
    for step in range(1, steps + 1):
        # Forward: from the inputs to the loss.
        h = x @ w1  # (64, 100)
        h_relu = np.maximum(h, 0)  # (64, 100)
        y_pred = h_relu @ w2  # (64, 10)
        loss = np.square(y_pred - y).sum()
        losses.append(float(loss))
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        # Backward: the same way back, by the chain rule.
        grad_y_pred = 2 * (y_pred - y)  # (64, 10)
        grad_w2 = h_relu.T @ grad_y_pred  # (100, 10)
        grad_h = grad_y_pred @ w2.T  # (64, 100)
        grad_h[h < 0] = 0
        grad_w1 = x.T @ grad_h  # (1000, 100)

        # Downhill by a small step.
        w1 -= learning_rate * grad_w1
        w2 -= learning_rate * grad_w2
    return losses


if __name__ == "__main__":
    main()

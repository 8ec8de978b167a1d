"""Step 4: a function with a gradient of one's own, in both ways of writing it.

Here it is ReLU. The usual way has static methods and a ``ctx`` that carries what ``backward``
needs; the older way has plain methods, and the instance itself carries it.
"""

import numpy as np

import treadle
from treadle.autograd import Function


class ReLU(Function):
    """max(x, 0): ``ReLU.apply(x)``."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        grad_input = grad_output.clone()
        grad_input[x < 0] = 0
        return grad_input


class InstanceReLU(Function):
    """max(x, 0), the older way: ``relu = InstanceReLU(); relu(x)``."""

    def forward(self, x):
        self.save_for_backward(x)
        return x.clamp(min=0)

    def backward(self, grad_output):
        (x,) = self.saved_tensors
        grad_input = grad_output.clone()
        grad_input[x < 0] = 0
        return grad_input


def main(steps=500, learning_rate=1e-6, relu=ReLU.apply):
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
        y_pred = relu(x.mm(w1)).mm(w2)  # (64, 1000) -> (64, 100) -> (64, 10)
        loss = (y_pred - y).pow(2).sum()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {losses[-1]:.6g}")

        loss.backward()

        # Through .data the update is hidden from the gradients, as under no_grad().
        w1.data -= learning_rate * w1.grad.data
        w2.data -= learning_rate * w2.grad.data
        w1.grad.data.zero_()
        w2.grad.data.zero_()
    return losses


if __name__ == "__main__":
    print("static methods and apply:")
    main()
    print("an instance:")
    main(relu=InstanceReLU())

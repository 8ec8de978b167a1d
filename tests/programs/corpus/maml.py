"""MAML (Finn et al., 2017) with second-order gradients, on regression of sine waves."""

import math

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


class SineTask:
    def __init__(self):
        self.amplitude = torch.rand(1) * 4.9 + 0.1
        self.phase = torch.rand(1) * math.pi

    def sample(self, count):
        x = torch.rand(count, 1) * 10 - 5
        return x, self.amplitude * torch.sin(x + self.phase)


def adapt(model, params, task, lr, inner_steps, create_graph):
    """The parameters after some steps on a few points of a task."""
    x, y = task.sample(10)
    for _ in range(inner_steps):
        loss = F.mse_loss(functional_call(model, params, (x,)), y)
        grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph)
        params = {name: p - lr * g for (name, p), g in zip(params.items(), grads)}
    return params


def train(steps=120, tasks_per_step=4, inner_lr=0.01, inner_steps=2):
    model = nn.Sequential(
        nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)
    )
    tasks = [SineTask() for _ in range(tasks_per_step)]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        total = 0.0
        for task in tasks:
            params = dict(model.named_parameters())
            adapted = adapt(model, params, task, inner_lr, inner_steps, create_graph=True)
            x, y = task.sample(20)
            loss = F.mse_loss(functional_call(model, adapted, (x,)), y) / len(tasks)
            loss.backward()
            total += loss.detach()
        optimizer.step()
        yield total.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

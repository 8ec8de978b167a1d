"""A normalising flow of coupling layers and 1x1 rotations (Dinh et al., 2017; Kingma, 2018)."""

import math

import torch
from torch import nn
from torch.distributions import MultivariateNormal


def two_moons(count):
    angle = math.pi * torch.rand(count)
    upper = torch.rand(count).lt(0.5)
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x - 0.5, y - 0.25], dim=1) * 1.5 + 0.08 * torch.randn(count, 2)


class Coupling(nn.Module):
    def __init__(self, mask, hidden=48):
        super().__init__()
        self.register_buffer("mask", torch.as_tensor(mask, dtype=torch.get_default_dtype()))
        self.scale = nn.Sequential(
            nn.Linear(2, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2), nn.Tanh()
        )
        self.shift = nn.Sequential(nn.Linear(2, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2))

    def forward(self, x):
        kept = x * self.mask
        s = self.scale(kept) * (1 - self.mask)
        t = self.shift(kept) * (1 - self.mask)
        return kept + (1 - self.mask) * (x * torch.exp(s) + t), s.sum(dim=1)

    def inverse(self, y):
        kept = y * self.mask
        s = self.scale(kept) * (1 - self.mask)
        t = self.shift(kept) * (1 - self.mask)
        return kept + (1 - self.mask) * ((y - t) * torch.exp(-s))


class Mixing(nn.Module):
    """A linear map of the two coordinates."""

    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.eye(2) + 0.1 * torch.randn(2, 2))

    def forward(self, x):
        _, log_det = torch.linalg.slogdet(self.W)
        return x @ self.W.T, log_det.expand(len(x))

    def inverse(self, y):
        return torch.linalg.solve(self.W, y.T).T


class Flow(nn.Module):
    def __init__(self, depth=4):
        super().__init__()
        self.layers = nn.ModuleList()
        for i in range(depth):
            self.layers.append(Coupling([i % 2, 1 - i % 2]))
            self.layers.append(Mixing())

    def log_prob(self, x):
        base = MultivariateNormal(torch.zeros(2), torch.eye(2))
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total += log_det
        return base.log_prob(x) + total

    @torch.no_grad()
    def sample(self, count):
        z = torch.randn(count, 2)
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z


def train(steps=120, batch=256):
    flow = Flow()
    optimizer = torch.optim.Adamax(flow.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = -flow.log_prob(two_moons(batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    print("corner of samples", flow.sample(256).amin(0).tolist())


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

"""A mixture density network (Bishop, 1994) on a relation with several answers."""

import math

import torch
import torch.distributions as D
from torch import nn


class MixtureDensityNetwork(nn.Module):
    def __init__(self, hidden=64, components=6):
        super().__init__()
        self.z_h = nn.Sequential(
            nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.z_pi = nn.Linear(hidden, components)
        self.z_mu = nn.Linear(hidden, components)
        self.z_sigma = nn.Linear(hidden, components)

    def forward(self, x):
        z_h = self.z_h(x)
        sigma = nn.functional.softplus(self.z_sigma(z_h)) + 1e-2
        return D.MixtureSameFamily(
            D.Categorical(logits=self.z_pi(z_h)), D.Normal(self.z_mu(z_h), sigma)
        )


class PlainMDN(MixtureDensityNetwork):
    """The same density written out."""

    def log_prob(self, x, y):
        z_h = self.z_h(x)
        log_pi = torch.log_softmax(self.z_pi(z_h), -1)
        sigma = nn.functional.softplus(self.z_sigma(z_h)) + 1e-2
        z = (y.unsqueeze(-1) - self.z_mu(z_h)) / sigma
        log_normal = -0.5 * z.square() - sigma.log() - 0.5 * math.log(2 * math.pi)
        return torch.logsumexp(log_pi + log_normal, dim=-1)


def train(steps=120, count=512):
    y = torch.rand(count) * 2 - 1
    noise = torch.normal(0.0, 0.05, size=(count,))
    x = 0.5 * torch.sin(7.0 * y) + 0.5 * y + noise
    x = x.unsqueeze(-1)
    model = PlainMDN()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-5)
    for step in range(steps):
        if step % 2:
            loss = -model.log_prob(x, y).mean()
        else:
            loss = -model(x).log_prob(y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    with torch.no_grad():
        found = model(torch.linspace(-1, 1, 5).unsqueeze(1))
        print("means", found.mean.tolist(), "spreads", found.stddev.tolist())


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

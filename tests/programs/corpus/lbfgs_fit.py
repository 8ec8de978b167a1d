"""A fit by L-BFGS: a spectrum as a sum of peaks, with a strong-Wolfe line search.

Each step is one call of the optimizer, of two iterations.
"""

import torch
from torch.nn.functional import softplus


def spectrum(points=400, peaks=8):
    """A noisy spectrum."""
    x = torch.linspace(0, 1, points)
    centres = torch.linspace(0.1, 0.9, peaks) + 0.06 * (torch.rand(peaks) - 0.5)
    widths = 0.03 + 0.04 * torch.rand(peaks)
    heights = 0.5 + torch.rand(peaks)
    y = (heights * torch.exp(-0.5 * ((x[:, None] - centres) / widths) ** 2)).sum(1)
    return x, y + 0.02 * torch.randn(points)


class Peaks(torch.nn.Module):
    def __init__(self, count):
        super().__init__()
        self.centres = torch.nn.Parameter(torch.linspace(0.1, 0.9, count))
        self.log_widths = torch.nn.Parameter(torch.full((count,), 0.08).log())
        self.raw_heights = torch.nn.Parameter(torch.zeros(count))
        self.baseline = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        z = (x.unsqueeze(-1) - self.centres) / self.log_widths.exp()
        curves = torch.exp(-0.5 * z**2) @ softplus(self.raw_heights)
        return self.baseline + curves


def train(calls=120, peaks=8):
    x, y = spectrum(peaks=peaks)
    model = Peaks(peaks)
    optimizer = torch.optim.LBFGS(
        model.parameters(), lr=1.0, max_iter=2, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = torch.mean((model(x) - y) ** 2)
        loss.backward()
        return loss

    for _ in range(calls):
        loss = optimizer.step(closure)
        yield loss.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

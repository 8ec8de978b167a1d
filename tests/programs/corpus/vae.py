"""A variational autoencoder (Kingma and Welling, 2014) of binary patterns."""

import numpy as np
import torch
import torch.utils.data
from torch import nn, optim
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F


def patterns(count, pixels=144, seed=3):
    """Binary images: thresholded sums of a few fixed waves."""
    rng = np.random.default_rng(seed)
    waves = rng.standard_normal((6, pixels))
    return ((rng.standard_normal((count, 6)) @ waves) > 0).astype(np.float32)


class VAE(nn.Module):
    def __init__(self, pixels=144, hidden=128, code=8):
        super().__init__()
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, code)
        self.fc22 = nn.Linear(hidden, code)
        self.fc3 = nn.Linear(code, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def decode(self, z):
        h3 = F.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 144))
        z = self.reparameterize(mu, logvar)
        return self.decode(z), mu, logvar


def loss_function(recon_x, x, mu, logvar):
    bce = F.binary_cross_entropy(recon_x, x, reduction="sum")
    posterior = Normal(mu, torch.exp(0.5 * logvar))
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return bce + kl_divergence(posterior, prior).sum()


def train(epochs=12):
    data = torch.from_numpy(patterns(640)).float()
    loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    model = VAE()
    encoder = [p for name, p in model.named_parameters() if name.startswith(("fc1", "fc2"))]
    decoder = [p for name, p in model.named_parameters() if name.startswith(("fc3", "fc4"))]
    optimizer = optim.Adam([{"params": encoder}, {"params": decoder, "lr": 3e-3}], lr=1e-3)
    for epoch in range(epochs):
        model.train()
        total = 0
        for data in loader:
            optimizer.zero_grad()
            recon, mu, logvar = model(data)
            loss = loss_function(recon, data, mu, logvar)
            loss.backward()
            total += loss.item()
            optimizer.step()
            yield loss.item() / len(data)
        print(f"====> Epoch: {epoch} Average loss: {total / len(loader.dataset):.4f}")
        with torch.no_grad():
            model.eval()
            sample = model.decode(torch.randn(4, 8))
            print(f"mean of samples {sample.mean().item():.3f}")


if __name__ == "__main__":
    for loss in train():
        print(loss)

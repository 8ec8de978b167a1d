"""A denoising convolutional autoencoder over a data set class of its own."""

import math
import random

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset


class Blobs(Dataset):
    """Images of a few soft discs; the item is the clean image."""

    def __init__(self, size, side=16):
        self.side = side
        generator = random.Random(1)
        self.discs = [
            [
                (generator.uniform(3, side - 3), generator.uniform(3, side - 3), generator.random())
                for _ in range(generator.randint(1, 3))
            ]
            for _ in range(size)
        ]

    def __len__(self):
        return len(self.discs)

    def __getitem__(self, idx):
        axis = torch.arange(self.side, dtype=torch.float32)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        image = torch.zeros(1, self.side, self.side)
        for cy, cx, strength in self.discs[idx]:
            image[0] += (0.5 + strength) * torch.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 6.0)
        return image.clamp_(0, 1)


class Autoencoder(nn.Module):
    def __init__(self, code=24):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Flatten(),
            nn.Linear(32 * 16, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 32 * 16),
            nn.Unflatten(1, (32, 4, 4)),
            nn.ConvTranspose2d(32, 16, kernel_size=4, stride=2, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(16, 1, kernel_size=4, stride=2, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


def train(epochs=10, noise=0.2):
    loader = DataLoader(Blobs(320), batch_size=32, shuffle=True, drop_last=True)
    model = Autoencoder()
    criterion = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for _ in range(epochs):
        for clean in loader:
            noisy = clean + noise * torch.randn(clean.size())
            loss = criterion(model(noisy), clean)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield loss.item()


def psnr(mse):
    return -10 * math.log10(mse)


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(f"{step}: {loss:.5f} ({psnr(loss):.2f} dB)")

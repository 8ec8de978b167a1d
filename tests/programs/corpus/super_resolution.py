"""Super-resolution by sub-pixel convolution (Shi et al., 2016) over bicubic interpolation."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.nn.init as init


def textures(count, side=32):
    """Sums of waves of random directions, phases and strengths."""
    axis = torch.linspace(0, 2 * math.pi, side)
    frequency = torch.rand(count, 5, 2) * 6 - 3
    phase = torch.rand(count, 5) * 2 * math.pi
    weight = torch.rand(count, 5)
    y = frequency[:, :, 0, None, None] * axis[:, None]
    x = frequency[:, :, 1, None, None] * axis
    waves = torch.cos(x + y + phase[..., None, None])
    images = torch.einsum("nk,nkyx->nyx", weight, waves) / weight.sum(1)[:, None, None]
    return (images.sign() * images.abs().sqrt()).unsqueeze(1) * 0.5 + 0.5


class Net(nn.Module):
    def __init__(self, upscale_factor):
        super(Net, self).__init__()
        self.upscale_factor = upscale_factor
        self.prelu = nn.PReLU(16)
        self.conv1 = nn.Conv2d(1, 16, (5, 5), (1, 1), (2, 2))
        self.conv2 = nn.Conv2d(16, 16, (3, 3), (1, 1), (1, 1))
        self.conv3 = nn.Conv2d(
            16, upscale_factor**2, (3, 3), (1, 1), (1, 1), padding_mode="reflect"
        )
        self.pixel_shuffle = nn.PixelShuffle(upscale_factor)
        self._initialize_weights()

    def forward(self, x):
        base = F.interpolate(x, scale_factor=self.upscale_factor, mode="bicubic")
        x = self.prelu(self.conv1(x))
        x = x + torch.tanh(self.conv2(x))
        return base + self.pixel_shuffle(self.conv3(x))

    def _initialize_weights(self):
        init.orthogonal_(self.conv1.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv2.weight, init.calculate_gain("tanh"))
        init.orthogonal_(self.conv3.weight, 0.1)


def charbonnier(prediction, target, eps=1e-3):
    return torch.sqrt((prediction - target) ** 2 + eps**2).mean()


def train(steps=120, batch=16, upscale_factor=2):
    images = textures(128)
    low = F.avg_pool2d(images, upscale_factor)
    model = Net(upscale_factor)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, amsgrad=True)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[50, 80], gamma=0.5)
    for step in range(steps):
        index = torch.randint(len(images), (batch,))
        target, source = images.index_select(0, index), low.index_select(0, index)
        prediction = model(source)
        loss = charbonnier(prediction, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 40 == 39:
            psnr = 10 * torch.log10(1 / F.mse_loss(prediction, target))
            print(f"step {step}: {psnr.item():.2f} dB at rate {scheduler.get_last_lr()[0]}")
        yield loss.item()


if __name__ == "__main__":
    for loss in train():
        print(loss)

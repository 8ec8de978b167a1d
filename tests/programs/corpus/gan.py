"""A convolutional GAN (Radford et al., 2016) that learns to draw crosses.

Each step yields the discriminator's loss, the generator's, and how far the mean generated image is
from the mean real one.
"""

import torch
import torch.nn as nn
import torch.optim as optim

NZ, NGF, NDF, SIDE = 16, 16, 16, 16


def real_images(count):
    """A horizontal and a vertical bar, each at a random place of the middle."""
    rows = torch.randint(5, 11, (count,))
    columns = torch.randint(5, 11, (count,))
    images = -torch.ones(count, 1, SIDE, SIDE)
    index = torch.arange(count)
    images[index, 0, rows] = 1.0
    images[index, 0, :, columns] = 1.0
    return images


def weights_init(m):
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        nn.init.normal_(m.weight.data, 0.0, 0.05)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight.data, 1.0, 0.02)
        nn.init.constant_(m.bias.data, 0)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(NZ, NGF * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(NGF * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(NGF * 2, NGF, 4, 2, 1, bias=False),
            nn.BatchNorm2d(NGF),
            nn.ReLU(True),
            nn.ConvTranspose2d(NGF, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, input):
        return self.main(input)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, NDF, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(NDF, NDF * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(NDF * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(NDF * 2, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, input):
        return self.main(input).view(-1)


def train(steps=120, batch=32):
    net_g = Generator()
    net_g.apply(weights_init)
    net_d = Discriminator()
    net_d.apply(weights_init)
    criterion = nn.BCELoss()
    fixed_noise = torch.randn(64, NZ, 1, 1)
    mean_image = real_images(512).mean(0)
    optimizer_d = optim.Adam(net_d.parameters(), lr=0.0005, betas=(0.5, 0.999))
    optimizer_g = optim.Adam(net_g.parameters(), lr=0.001, betas=(0.5, 0.999))
    for _ in range(steps):
        # Update D: maximize log(D(x)) + log(1 - D(G(z)))
        net_d.zero_grad()
        real = real_images(batch)
        label = torch.full((batch,), 0.9, dtype=real.dtype)
        output = net_d(real)
        err_d_real = criterion(output, label)
        err_d_real.backward()
        noise = torch.randn(batch, NZ, 1, 1)
        fake = net_g(noise)
        label.fill_(0.0)
        output = net_d(fake.detach())
        err_d_fake = criterion(output, label)
        err_d_fake.backward()
        err_d = err_d_real + err_d_fake
        optimizer_d.step()
        # Update G: maximize log(D(G(z)))
        net_g.zero_grad()
        label.fill_(1.0)
        output = net_d(fake)
        err_g = criterion(output, label)
        err_g.backward()
        optimizer_g.step()
        with torch.no_grad():
            distance = (net_g(fixed_noise).mean(0) - mean_image).abs().mean()
        yield err_d.item(), err_g.item(), distance.item()


if __name__ == "__main__":
    for step, found in enumerate(train()):
        print(step, *found)

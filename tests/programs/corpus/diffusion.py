"""Denoising diffusion (Ho et al., 2020) of points in the plane, with averaged weights."""

import copy
import math

import torch
import torch.nn as nn


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        half_dim = self.dim // 2
        emb = math.log(10000) / (half_dim - 1)
        emb = torch.exp(torch.arange(half_dim, device=t.device) * -emb)
        emb = t[:, None] * emb[None, :]
        return torch.cat((emb.sin(), emb.cos()), dim=-1)


class Block(nn.Module):
    """Features scaled and shifted by the time."""

    def __init__(self, dim):
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.film = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim * 2))
        self.ff = nn.Sequential(nn.Linear(dim, dim), nn.Mish(), nn.Linear(dim, dim))

    def forward(self, x, t):
        scale, shift = self.film(t).chunk(2, dim=-1)
        return x + self.ff(self.norm(x) * (scale + 1) + shift)


class Denoiser(nn.Module):
    def __init__(self, dim=64, depth=3):
        super().__init__()
        self.time = nn.Sequential(SinusoidalPosEmb(dim), nn.Linear(dim, dim), nn.SiLU())
        self.enter, self.leave = nn.Linear(2, dim), nn.Linear(dim, 2)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))

    def forward(self, x, t):
        t = self.time(t)
        x = self.enter(x)
        for block in self.blocks:
            x = block(x, t)
        return self.leave(x)


def extract(a, t, x_shape):
    return a.gather(-1, t).reshape(t.shape[0], *((1,) * (len(x_shape) - 1)))


class Diffusion(nn.Module):
    def __init__(self, model, timesteps=50):
        super().__init__()
        self.model = model
        self.timesteps = timesteps
        betas = torch.linspace(1e-4, 0.15, timesteps)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        self.register_buffer("betas", betas, persistent=False)
        self.register_buffer("sqrt_ac", torch.sqrt(alphas_cumprod), persistent=False)
        self.register_buffer("sqrt_omac", torch.sqrt(1.0 - alphas_cumprod), persistent=False)

    def forward(self, x_start):
        t = torch.randint(0, self.timesteps, (x_start.shape[0],), device=x_start.device).long()
        noise = torch.randn_like(x_start)
        x = extract(self.sqrt_ac, t, x_start.shape) * x_start
        x = x + extract(self.sqrt_omac, t, x_start.shape) * noise
        return torch.nn.functional.smooth_l1_loss(self.model(x, t), noise, beta=0.5)

    @torch.inference_mode()
    def sample(self, count):
        x = torch.randn(count, 2)
        for i in reversed(range(self.timesteps)):
            t = torch.full((count,), i, dtype=torch.long)
            noise = self.model(x, t)
            x = x - extract(self.betas / self.sqrt_omac, t, x.shape) * noise
            x = x / extract((1.0 - self.betas).sqrt(), t, x.shape)
            if i:
                x += extract(self.betas.sqrt(), t, x.shape) * torch.randn_like(x)
        return x


def eight_gaussians(count):
    angle = torch.randint(0, 8, (count,)) * (math.pi / 4)
    return torch.stack([angle.cos(), angle.sin()], dim=-1) * 1.5 + 0.05 * torch.randn(count, 2)


def update_average(average, model, decay=0.95):
    with torch.no_grad():
        for a, p in zip(average.parameters(), model.parameters()):
            a.lerp_(p, 1 - decay)


def train(steps=120, batch=256):
    diffusion = Diffusion(Denoiser())
    average = copy.deepcopy(diffusion)
    optimizer = torch.optim.RAdam(diffusion.parameters(), lr=4e-3, betas=(0.9, 0.99))
    for _ in range(steps):
        loss = diffusion(eight_gaussians(batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        update_average(average, diffusion)
        yield loss.item()
    radius = average.sample(64).norm(dim=1)
    print(f"mean radius of samples {radius.mean().item():.3f}")


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

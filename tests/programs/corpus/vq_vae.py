"""A VQ-VAE (van den Oord et al., 2017): discrete codes, straight-through gradients."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class StraightThrough(torch.autograd.Function):
    """The nearest code forward; the gradient passes as it is."""

    @staticmethod
    def forward(ctx, z, codebook):
        distances = torch.addmm(
            codebook.pow(2).sum(1) + z.pow(2).sum(1, keepdim=True), z, codebook.t(), alpha=-2.0
        )
        indices = torch.argmin(distances, dim=1)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(indices, codebook)
        return torch.index_select(codebook, 0, indices), indices

    @staticmethod
    def backward(ctx, grad_output, grad_indices):
        return grad_output.clone(), None


class VectorQuantizer(nn.Module):
    def __init__(self, codes=24, dim=8, decay=0.95):
        super().__init__()
        self.decay = decay
        self.register_buffer("codebook", torch.randn(codes, dim) * 0.3)
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", self.codebook.clone())

    def forward(self, z):  # (N, C, H, W)
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.size(1))
        chosen, indices = StraightThrough.apply(flat, self.codebook)
        if self.training:
            self._update(flat.detach(), indices)
        n, _, h, w = z.shape
        commitment = F.mse_loss(flat, chosen.detach())
        return chosen.view(n, h, w, -1).permute(0, 3, 1, 2), commitment, indices

    @torch.no_grad()
    def _update(self, flat, indices):
        one_hot = F.one_hot(indices, len(self.codebook)).type_as(flat)
        self.count.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
        self.total.mul_(self.decay).addmm_(one_hot.t(), flat, alpha=1 - self.decay)
        self.codebook.copy_(self.total / self.count.clamp(min=1e-2).unsqueeze(1))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class VQVAE(nn.Module):
    def __init__(self, width=16, dim=8):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1), Residual(width), nn.Conv2d(width, dim, 4, 2, 1)
        )
        self.quantize = VectorQuantizer(dim=dim)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(dim, width, 4, 2, 1), Residual(width),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x):
        z, commitment, indices = self.quantize(self.encoder(x))
        return self.decoder(z), commitment, indices


def tiles(count, side=16):
    """Images of tiles, each tile one of four patterns."""
    axis = torch.arange(4)
    y, x = axis.view(4, 1), axis.view(1, 4)
    patterns = torch.stack([(x + y) % 2, (x < 2).expand(4, 4), (y < 2).expand(4, 4), (x == y)])
    kinds = torch.randint(4, (count, side // 4, side // 4))
    images = patterns[kinds].permute(0, 1, 3, 2, 4).reshape(count, 1, side, side)
    return images * 2.0 - 1.0


def train(steps=120, batch=16, beta=0.25):
    data = tiles(256)
    model = VQVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        images = data[torch.randint(0, len(data), (batch,))]
        recon, commitment, indices = model(images)
        loss = F.mse_loss(recon, images) + beta * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 39:
            print(f"step {step}: {indices.unique().numel()} codes in use")
        yield loss.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

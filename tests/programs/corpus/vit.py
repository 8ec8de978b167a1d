"""A vision Transformer (Dosovitskiy et al., 2021) that tells shapes in small colour images."""

import torch
import torch.nn as nn
import torch.nn.functional as F

CLASSES = 4


def shapes(count, side=24):
    """Discs, squares, crosses and rings of a random place, size and colour, in noise."""
    labels = torch.randint(0, CLASSES, (count,))
    axis = torch.arange(side).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centre = torch.rand(count, 2, 1, 1) * 8 + 8
    radius = torch.rand(count, 1, 1) * 3 + 4
    dy, dx = (y - centre[:, 0]).abs(), (x - centre[:, 1]).abs()
    distance = torch.sqrt(dy**2 + dx**2)
    masks = torch.stack([
        distance < radius,
        torch.maximum(dy, dx) < radius * 0.9,
        (torch.minimum(dy, dx) < 1.5) & (torch.maximum(dy, dx) < radius),
        (distance - radius).abs() < 1.2,
    ])  # fmt: skip
    mask = masks[labels, torch.arange(count)]
    colour = torch.rand(count, 3, 1, 1) * 0.7 + 0.3
    images = mask.unsqueeze(1) * colour + 0.1 * torch.randn(count, 3, side, side)
    return images, labels


class PatchEmbed(nn.Module):
    def __init__(self, patch=4, dim=48):
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(3 * patch * patch, dim)

    def forward(self, x):
        patches = F.unfold(x, kernel_size=self.patch, stride=self.patch)  # (N, C*p*p, L)
        return self.proj(patches.permute(0, 2, 1))


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = torch.einsum("bhqd,bhkd->bhqk", q, k).mul(self.scale).softmax(dim=-1)
        x = torch.einsum("bhqk,bhkd->bqhd", attn, v).flatten(2)
        return self.proj(x)


class DropPath(nn.Module):
    """Stochastic depth: leaves a sample's residual branch out."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0.0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x.div(keep) * mask


class Block(nn.Module):
    def __init__(self, dim, heads, drop_path):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 2), nn.GELU(), nn.Linear(dim * 2, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ViT(nn.Module):
    def __init__(self, dim=48, depth=3, heads=4, tokens=36):
        super().__init__()
        self.patch_embed = PatchEmbed(dim=dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, dim))
        rates = torch.linspace(0, 0.1, depth).tolist()
        self.blocks = nn.Sequential(*[Block(dim, heads, rate) for rate in rates])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x):
        x = self.patch_embed(x)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.blocks(x + self.pos_embed)
        return self.head(self.norm(x)[:, 0])


def train(epochs=20, batch=32):
    images, labels = shapes(256)
    mean, std = images.mean(dim=(0, 2, 3), keepdim=True), images.std(dim=(0, 2, 3), keepdim=True)
    images = (images - mean) / std
    model = ViT()
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=epochs * len(images) // batch
    )
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(images))
        for chosen in order.split(batch):
            x, y = images[chosen], labels[chosen]
            flip = torch.rand(len(x)) < 0.5
            x = torch.where(flip[:, None, None, None], x.flip(-1), x)
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            yield loss.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

"""Style transfer by optimising pixels (Gatys et al., 2016) for the features of a fixed network."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def gram_matrix(features):
    b, c, h, w = features.size()
    flat = features.view(b, c, h * w)
    return torch.bmm(flat, flat.transpose(1, 2)).div(c * h * w)


class Normalization(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, img):
        return (img - self.mean) / self.std


def feature_network():
    layers = [Normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    channels = 3
    for i, width in enumerate((12, 12, 24, 24)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=False)]
        if i % 2:
            layers.append(nn.AvgPool2d(2))
        channels = width
    cnn = nn.Sequential(*layers).eval()
    return cnn.requires_grad_(False)


class FeatureTap:
    """Remembers what the convolutions of a network give."""

    def __init__(self, cnn):
        self.features = []
        self.handles = [
            layer.register_forward_hook(self._remember)
            for layer in cnn.children()
            if isinstance(layer, nn.Conv2d)
        ]

    def _remember(self, module, args, output):
        self.features.append(output)

    def take(self):
        features, self.features = self.features, []
        return features

    def remove(self):
        for handle in self.handles:
            handle.remove()


def pictures(side):
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    disc = (torch.hypot(x, y) < 0.6).float()
    content = torch.stack([disc, 0.5 * disc + 0.2, 1 - disc])
    stripes = 0.5 + 0.5 * torch.sin(8 * math.pi * (x + y) / 2)
    style = torch.stack([stripes, stripes**2, 0.3 * torch.ones_like(stripes)])
    return content.unsqueeze(0), style.unsqueeze(0)


def total_variation(image):
    return (image[..., 1:, :] - image[..., :-1, :]).abs().mean() + (
        image[..., :, 1:] - image[..., :, :-1]
    ).abs().mean()


def train(steps=120, side=48, style_weight=2e3, content_weight=1.0, tv_weight=0.1):
    cnn = feature_network()
    tap = FeatureTap(cnn)
    content, style = pictures(side)
    with torch.no_grad():
        cnn(content)
        content_target = tap.take()[2]
        cnn(style)
        style_targets = [gram_matrix(f) for f in tap.take()]
    image = content.clone() + 0.1 * torch.randn_like(content)
    image.requires_grad_(True)
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(steps):
        with torch.no_grad():
            image.clamp_(0, 1)
        optimizer.zero_grad()
        cnn(image)
        features = tap.take()
        style_score = sum(F.mse_loss(gram_matrix(f), g) for f, g in zip(features, style_targets))
        content_score = F.mse_loss(features[2], content_target)
        loss = style_weight * style_score + content_weight * content_score
        loss = loss + tv_weight * total_variation(image)
        loss.backward()
        optimizer.step()
        yield loss.item()
    tap.remove()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

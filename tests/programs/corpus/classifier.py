"""A convolutional classifier of small noisy images, with a validation split."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

CLASSES = 6


def make_images(count, side=16, seed=0):
    """Bars at one of six angles, at a random place, in noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    ys, xs = np.mgrid[:side, :side] - (side - 1) / 2
    angles = np.pi * labels / CLASSES
    offsets = rng.uniform(-3, 3, count)
    distance = (
        xs * np.sin(angles)[:, None, None]
        - ys * np.cos(angles)[:, None, None]
        - offsets[:, None, None]
    )
    images = np.exp(-(distance**2)) + 0.3 * rng.standard_normal((count, side, side))
    return torch.tensor(images[:, None], dtype=torch.float32), torch.from_numpy(labels)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.dropout = nn.Dropout(0.25)
        self.fc = nn.Linear(32 * 4 * 4, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = self.dropout(torch.flatten(x, 1))
        return self.fc(x)


def evaluate(model, loader, device):
    model.eval()
    loss, correct, total = 0.0, 0, 0
    with torch.no_grad():
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            output = model(images)
            loss += F.cross_entropy(output, labels, reduction="sum").item()
            correct += (output.argmax(dim=1) == labels).sum().item()
            total += labels.size(0)
    return loss / total, correct / total


def train(epochs=8):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = TensorDataset(*make_images(1200))
    train_set, val_set = random_split(dataset, [1000, 200])
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    val_loader = DataLoader(val_set, batch_size=100)
    model = Net().to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    for epoch in range(epochs):
        model.train()
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            yield loss.item()
        scheduler.step()
        val_loss, accuracy = evaluate(model, val_loader, device)
        print(f"epoch {epoch}: validation loss {val_loss:.4f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

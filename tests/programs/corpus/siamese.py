"""A siamese network with a triplet loss: an embedding in which one example of a class suffices."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

CLASSES, DIM = 10, 40


class Signals(Dataset):
    """Noisy, shifted copies of one signal per class."""

    def __init__(self, per_class):
        prototypes = torch.randn(CLASSES, DIM).cumsum(1)
        prototypes = (prototypes - prototypes.mean(1, keepdim=True)) / prototypes.std(
            1, keepdim=True
        )
        self.labels = torch.arange(CLASSES).repeat_interleave(per_class)
        shifts = torch.randint(-3, 4, (len(self.labels),)).tolist()
        rows = [prototypes[y].roll(s) for y, s in zip(self.labels.tolist(), shifts)]
        self.data = torch.stack(rows) + 0.4 * torch.randn(len(rows), DIM)

    def __len__(self):
        return self.labels.numel()

    def __getitem__(self, i):
        return self.data[i].unsqueeze(0), self.labels[i]


class ClassBalanced(Sampler):
    """So many items of each class in each batch."""

    def __init__(self, labels, each, batches):
        self.places = [(labels == c).nonzero().squeeze(1) for c in range(CLASSES)]
        self.each, self.batches = each, batches

    def __len__(self):
        return self.batches

    def __iter__(self):
        for _ in range(self.batches):
            chosen = [p[torch.randperm(len(p))[: self.each]] for p in self.places]
            yield torch.cat(chosen).tolist()


class Branch(nn.Module):
    def __init__(self, embedding=16):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 16, 5, padding=2),
            nn.InstanceNorm1d(16, affine=True),
            nn.ELU(),
            nn.MaxPool1d(2),
            nn.Conv1d(16, 32, 5, padding=2),
            nn.ELU(),
            nn.AdaptiveAvgPool1d(4),
        )
        self.embed = nn.Linear(128, embedding)

    def forward(self, x):
        return F.normalize(self.embed(self.features(x).flatten(1)), p=2, dim=1)


def hardest(embeddings, labels):
    """For each anchor its farthest positive and its nearest negative."""
    distances = torch.cdist(embeddings, embeddings).detach()
    same = labels[:, None] == labels[None, :]
    positive = distances.masked_fill(~same, -1.0).argmax(dim=1)
    negative = distances.masked_fill(same, float("inf")).argmin(dim=1)
    return embeddings[positive], embeddings[negative]


def one_shot_accuracy(model, dataset):
    model.eval()
    with torch.inference_mode():
        embeddings = model(dataset.data.unsqueeze(1))
        support = torch.arange(0, len(dataset), len(dataset) // CLASSES)
        similarity = F.cosine_similarity(embeddings[:, None], embeddings[support][None], dim=-1)
        accuracy = similarity.max(dim=1).indices.eq(dataset.labels).double().mean().item()
    model.train()
    return accuracy


def train(steps=120):
    dataset = Signals(30)
    loader = DataLoader(dataset, batch_sampler=ClassBalanced(dataset.labels, 4, steps))
    model = Branch()
    criterion = nn.TripletMarginLoss(margin=0.5, p=2)
    optimizer = torch.optim.NAdam(model.parameters(), lr=2e-3)
    for signals, labels in loader:
        embeddings = model(signals)
        positives, negatives = hardest(embeddings, labels)
        loss = criterion(embeddings, positives, negatives)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    print(f"one-shot accuracy {one_shot_accuracy(model, dataset):.3f}")


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

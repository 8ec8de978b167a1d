"""A child-sum TreeLSTM (Tai et al., 2015) that judges generated arithmetic expressions."""

import random
from dataclasses import dataclass, field

import torch
import torch.nn as nn
import torch.nn.functional as F

SYMBOLS = "0123456789+-*"


@dataclass
class Tree:
    symbol: str
    children: list = field(default_factory=list)

    def value(self):
        if not self.children:
            return int(self.symbol)
        a, b = (child.value() for child in self.children)
        return {"+": a + b, "-": a - b, "*": a * b}[self.symbol]


def random_tree(rng, depth):
    if depth == 0 or rng.random() < 0.3:
        return Tree(rng.choice(SYMBOLS[:10]))
    return Tree(rng.choice("+-*"), [random_tree(rng, depth - 1), random_tree(rng, depth - 1)])


class ChildSumTreeLSTM(nn.Module):
    def __init__(self, in_dim, mem_dim):
        super().__init__()
        self.mem_dim = mem_dim
        self.ioux = nn.Linear(in_dim, 3 * mem_dim)
        self.iouh = nn.Linear(mem_dim, 3 * mem_dim, bias=False)
        self.fx = nn.Linear(in_dim, mem_dim)
        self.fh = nn.Linear(mem_dim, mem_dim, bias=False)

    def node_forward(self, inputs, child_c, child_h):
        child_h_sum = torch.sum(child_h, dim=0, keepdim=True)
        iou = self.ioux(inputs) + self.iouh(child_h_sum)
        i, o, u = torch.split(iou, iou.size(1) // 3, dim=1)
        i, o, u = torch.sigmoid(i), torch.sigmoid(o), torch.tanh(u)
        f = torch.sigmoid(self.fh(child_h) + self.fx(inputs).repeat(len(child_h), 1))
        fc = torch.mul(f, child_c)
        c = torch.mul(i, u) + torch.sum(fc, dim=0, keepdim=True)
        h = torch.mul(o, torch.tanh(c))
        return c, h

    def forward(self, tree, embed):
        states = [self.forward(child, embed) for child in tree.children]
        inputs = embed(torch.tensor([SYMBOLS.index(tree.symbol)]))
        if states:
            child_c, child_h = zip(*states)
            child_c, child_h = torch.cat(child_c, dim=0), torch.cat(child_h, dim=0)
        else:
            child_c = inputs.new_zeros(1, self.mem_dim)
            child_h = inputs.new_zeros(1, self.mem_dim)
        return self.node_forward(inputs, child_c, child_h)


class Judge(nn.Module):
    """Negative, small or large?"""

    def __init__(self, dim=32, classes=3):
        super().__init__()
        self.embed = nn.Embedding(len(SYMBOLS), dim)
        self.tree = ChildSumTreeLSTM(dim, dim)
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.SELU(), nn.Linear(dim, classes))

    def forward(self, tree):
        _, hidden = self.tree(tree, self.embed)
        return self.out(hidden)


def label(tree):
    value = tree.value()
    return 0 if value < 0 else 1 if value < 12 else 2


def train(steps=120, batch=6):
    rng = random.Random(11)
    trees = [random_tree(rng, 3) for _ in range(60)]
    model = Judge()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    for step in range(steps):
        chosen = [trees[(step * batch + i) % len(trees)] for i in range(batch)]
        logits = torch.cat([model(tree) for tree in chosen])
        loss = F.cross_entropy(logits, torch.LongTensor([label(tree) for tree in chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

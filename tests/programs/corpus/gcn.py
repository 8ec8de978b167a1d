"""A graph convolutional network (Kipf and Welling, 2017): few labels, many edges."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parameter import Parameter


def block_model(nodes=300, classes=5, inside=0.08, outside=0.005, features=40):
    """Edges (2, E) that are likelier inside a class; features that hint at the class."""
    labels = torch.arange(nodes) % classes
    likelihood = torch.where(labels[:, None] == labels[None, :], inside, outside)
    upper = torch.triu(torch.rand(nodes, nodes) < likelihood, diagonal=1)
    edges = torch.nonzero(upper).t()
    x = torch.randn(nodes, features)
    x[torch.arange(nodes), labels] += 1.0
    return x, torch.cat([edges, edges.flip(0)], dim=1), labels


class GCNConv(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = Parameter(torch.empty(in_features, out_features))
        self.bias = Parameter(torch.zeros(out_features))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x, edge_index, edge_weight):
        source, target = edge_index
        messages = (x @ self.weight)[source] * edge_weight.unsqueeze(-1)
        out = torch.zeros(x.size(0), messages.size(1), dtype=x.dtype)
        out = out.scatter_add(0, target.unsqueeze(-1).expand_as(messages), messages)
        return out + self.bias

    def extra_repr(self):
        return f"{self.weight.size(0)}, {self.weight.size(1)}"


class GCN(nn.Module):
    def __init__(self, features, hidden, classes):
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(features, hidden), GCNConv(hidden, classes)])

    def forward(self, x, edge_index, edge_weight):
        x = F.dropout(x, 0.3, training=self.training)
        x = F.relu(self.convs[0](x, edge_index, edge_weight))
        x = F.dropout(x, p=0.5, training=self.training)
        return self.convs[1](x, edge_index, edge_weight)


def normalised(edge_index, nodes):
    """The edges with loops, and D^-1/2 A D^-1/2 on them."""
    loops = torch.arange(nodes).repeat(2, 1)
    edge_index = torch.cat([edge_index, loops], dim=1)
    source, target = edge_index
    degree = torch.zeros(nodes).index_add_(0, target, torch.ones(target.numel()))
    factor = degree.pow(-0.5)
    return edge_index, factor[source] * factor[target]


def train(steps=120):
    x, edge_index, labels = block_model()
    edge_index, edge_weight = normalised(edge_index, len(x))
    train_mask = torch.zeros(len(x), dtype=torch.bool)
    train_mask[: len(x) // 4] = True
    model = GCN(x.size(1), 32, 5)
    print(model)
    optimizer = torch.optim.Adam(
        [
            dict(params=model.convs[0].parameters(), weight_decay=5e-4),
            dict(params=model.convs[1].parameters(), weight_decay=0),
        ],
        lr=0.01,
    )
    for step in range(steps):
        model.train()
        optimizer.zero_grad()
        out = model(x, edge_index, edge_weight)
        loss = F.nll_loss(F.log_softmax(out, dim=1)[train_mask], labels[train_mask])
        loss.backward()
        optimizer.step()
        if step % 40 == 39:
            model.eval()
            predicted = model(x, edge_index, edge_weight).argmax(dim=-1)
            accuracy = (predicted == labels)[~train_mask].sum().item() / int((~train_mask).sum())
            print(f"step {step}: test accuracy {accuracy:.3f}")
        yield loss.item()


if __name__ == "__main__":
    for loss in train():
        print(loss)

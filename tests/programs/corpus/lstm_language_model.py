"""A word-level language model: two layers of LSTM, tied weights, dropout, hidden state carried."""

import math

import numpy as np
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import ReduceLROnPlateau


def corpus(length, vocabulary=120, seed=5):
    """A text of a random grammar: each word is followed by one of four words."""
    rng = np.random.default_rng(seed)
    followers = rng.integers(0, vocabulary, (vocabulary, 4))
    words = [0]
    for _ in range(length - 1):
        words.append(followers[words[-1], min(rng.geometric(0.6) - 1, 3)])
    return torch.tensor(np.array(words), dtype=torch.long)


def batchify(data, bsz):
    nbatch = data.size(0) // bsz
    data = data.narrow(0, 0, nbatch * bsz)
    return data.view(bsz, -1).t().contiguous()


def repackage_hidden(h):
    """Wraps hidden states in new tensors, to detach them from their history."""
    if isinstance(h, torch.Tensor):
        return h.detach()
    return tuple(repackage_hidden(v) for v in h)


class RNNModel(nn.Module):
    def __init__(self, ntoken, ninp, nhid, nlayers, dropout=0.2):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers)
        self.decoder = nn.Linear(nhid, ntoken)
        self.decoder.weight = self.encoder.weight
        self.nhid, self.nlayers = nhid, nlayers
        self.init_weights()

    def init_weights(self):
        initrange = 0.1
        nn.init.uniform_(self.encoder.weight, -initrange, initrange)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, input, hidden):
        emb = self.drop(self.encoder(input))
        output, hidden = self.rnn(emb, hidden)
        decoded = self.decoder(self.drop(output))
        return torch.log_softmax(decoded.view(-1, decoded.size(-1)), dim=1), hidden

    def init_hidden(self, bsz):
        weight = next(self.parameters())
        return (
            weight.new_zeros(self.nlayers, bsz, self.nhid),
            weight.new_zeros(self.nlayers, bsz, self.nhid),
        )


def train(epochs=8, bptt=20, batch=16):
    text = batchify(corpus(batch * 281), batch)
    model = RNNModel(120, 64, 64, 2)
    criterion = nn.NLLLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    for epoch in range(epochs):
        model.train()
        hidden = model.init_hidden(batch)
        total = 0.0
        for i in range(0, text.size(0) - 1, bptt):
            seq_len = min(bptt, len(text) - 1 - i)
            data, targets = text[i : i + seq_len], text[i + 1 : i + 1 + seq_len].view(-1)
            model.zero_grad()
            hidden = repackage_hidden(hidden)
            output, hidden = model(data, hidden)
            loss = criterion(output, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            total += loss.item()
            yield loss.item()
        mean = total * bptt / (len(text) - 1)
        scheduler.step(mean)
        print(f"epoch {epoch}: perplexity {math.exp(mean):.2f}")


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

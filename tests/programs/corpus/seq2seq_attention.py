"""Sequence to sequence with additive attention (Bahdanau et al., 2015), on packed sequences.

It learns to write a sequence of digits backwards.
"""

import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

PAD, SOS, EOS = 0, 1, 2
VOCAB = 13


class Reversals(Dataset):
    def __init__(self, size, seed=0):
        rng = random.Random(seed)
        self.items = [
            [rng.randrange(3, VOCAB) for _ in range(rng.randint(3, 7))] for _ in range(size)
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        source = self.items[index]
        return torch.tensor(source), torch.tensor([SOS, *source[::-1], EOS])


def collate(batch):
    """Longest first, padded."""
    batch.sort(key=lambda pair: len(pair[0]), reverse=True)
    sources, targets = zip(*batch)
    lengths = torch.tensor([len(s) for s in sources])
    return (
        pad_sequence(sources, batch_first=True, padding_value=PAD),
        lengths,
        pad_sequence(targets, batch_first=True, padding_value=PAD),
    )


class Encoder(nn.Module):
    def __init__(self, embedding, hidden):
        super().__init__()
        self.embedding = embedding
        self.gru = nn.GRU(embedding.embedding_dim, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * hidden, hidden)

    def forward(self, source, lengths):
        packed = pack_padded_sequence(self.embedding(source), lengths, batch_first=True)
        outputs, hidden = self.gru(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True)
        hidden = torch.cat((hidden[0], hidden[1]), dim=1)
        return outputs, torch.tanh(self.bridge(hidden))


class Attention(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.W = nn.Linear(hidden, hidden, bias=False)
        self.U = nn.Linear(2 * hidden, hidden, bias=False)
        self.v = nn.Parameter(torch.rand(hidden) - 0.5)

    def forward(self, query, keys, mask):
        energy = torch.tanh(self.W(query).unsqueeze(1) + self.U(keys)) @ self.v
        energy = energy.masked_fill(~mask, float("-inf"))
        weights = F.softmax(energy, dim=1)
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)


class Decoder(nn.Module):
    def __init__(self, embedding, hidden):
        super().__init__()
        self.embedding = embedding
        self.attention = Attention(hidden)
        self.cell = nn.GRUCell(embedding.embedding_dim + 2 * hidden, hidden)
        self.out = nn.Linear(3 * hidden, VOCAB)

    def forward(self, token, hidden, keys, mask):
        context = self.attention(hidden, keys, mask)
        hidden = self.cell(torch.cat([self.embedding(token), context], -1), hidden)
        return self.out(torch.cat([hidden, context], -1)), hidden


def train(epochs=20, hidden_size=48, teacher_forcing=0.7):
    coin = random.Random(7)
    loader = DataLoader(Reversals(512), batch_size=64, shuffle=True, collate_fn=collate)
    embedding = nn.Embedding(VOCAB, 24, padding_idx=PAD)
    encoder, decoder = Encoder(embedding, hidden_size), Decoder(embedding, hidden_size)
    params = {id(p): p for m in (encoder, decoder) for p in m.parameters()}.values()
    optimizer = torch.optim.Adam(params, lr=4e-3)
    for _ in range(epochs):
        for source, lengths, target in loader:
            mask = source != PAD
            keys, hidden = encoder(source, lengths)
            token = target[:, 0]
            loss = 0
            for t in range(1, target.size(1)):
                logits, hidden = decoder(token, hidden, keys, mask)
                loss += F.cross_entropy(logits, target[:, t], ignore_index=PAD, reduction="sum")
                forced = coin.random() < teacher_forcing
                token = target[:, t] if forced else logits.argmax(1).detach()
            loss = loss / (target[:, 1:] != PAD).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()
            yield loss.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

"""Skip-grams with negative sampling (Mikolov et al., 2013)."""

from collections import Counter, defaultdict

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def sentences(count=400, topics=8, seed=4):
    """Words of a topic keep company; some words belong to all."""
    rng = np.random.default_rng(seed)
    common = [f"the{i}" for i in range(6)]
    for _ in range(count):
        topic = rng.integers(topics)
        own = [f"t{topic}w{i}" for i in range(12)]
        yield [str(rng.choice(common if rng.random() < 0.25 else own)) for _ in range(12)]


class SkipGram(nn.Module):
    def __init__(self, vocab_size, dim):
        super().__init__()
        self.u_embeddings = nn.Embedding(vocab_size, dim)
        self.v_embeddings = nn.Embedding(vocab_size, dim)
        initrange = 1.0 / dim
        nn.init.uniform_(self.u_embeddings.weight.data, -initrange, initrange)
        nn.init.constant_(self.v_embeddings.weight.data, 0)

    def forward(self, pos_u, pos_v, neg_v):
        emb_u = self.u_embeddings(pos_u)
        emb_v = self.v_embeddings(pos_v)
        emb_neg_v = self.v_embeddings(neg_v)
        score = torch.sum(torch.mul(emb_u, emb_v), dim=1)
        score = -F.logsigmoid(torch.clamp(score, max=10, min=-10))
        neg_score = torch.bmm(emb_neg_v, emb_u.unsqueeze(2)).squeeze(2)
        neg_score = -torch.sum(F.logsigmoid(-torch.clamp(neg_score, max=10, min=-10)), dim=1)
        return torch.mean(score + neg_score)


def nearest(model, id_of, word, k=4):
    names = {i: w for w, i in id_of.items()}
    table = F.normalize(model.u_embeddings.weight.detach(), dim=1)
    values, indices = torch.topk(table @ table[id_of[word]], k + 1)
    return [names[int(i)] for i in indices[1:]]


def train(epochs=3, batch=512, window=3, negatives=5, dim=32):
    text = list(sentences())
    counts = Counter(word for sentence in text for word in sentence)
    id_of = defaultdict(lambda: len(id_of))
    for word, _ in counts.most_common():
        id_of[word]
    frequency = torch.tensor([counts[w] for w in id_of], dtype=torch.float)
    noise = frequency**0.75 / (frequency**0.75).sum()
    pairs = torch.tensor([
        (id_of[u], id_of[v])
        for sentence in text
        for i, u in enumerate(sentence)
        for j, v in enumerate(sentence)
        if 0 < abs(i - j) <= window
    ])  # fmt: skip
    model = SkipGram(len(id_of), dim)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    steps = len(pairs) // batch
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in range(epochs):
        order = torch.randperm(len(pairs))
        for chunk in torch.split(order, batch):
            pos_u, pos_v = pairs[chunk].unbind(1)
            neg_v = torch.multinomial(noise, len(chunk) * negatives, replacement=True)
            optimizer.zero_grad()
            loss = model(pos_u, pos_v, neg_v.view(len(chunk), negatives))
            loss.backward()
            optimizer.step()
            scheduler.step()
            yield loss.item()
    print("near t0w0:", nearest(model, id_of, "t0w0"))


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

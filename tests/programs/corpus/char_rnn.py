"""A character-level RNN written as its formula, trained by truncated backpropagation."""

import torch
import torch.nn as nn
import torch.nn.functional as F

TEXT = """
the quick brown fox jumps over the lazy dog and the dog sleeps on while the fox runs home.
a small step is still a step, and a long road is made of many small steps taken one by one.
she sells sea shells by the sea shore; the shells she sells are sea shells, she is sure.
how much wood would a woodchuck chuck if a woodchuck could chuck wood, he asked the dog.
"""


class CharRNN(nn.Module):
    def __init__(self, vocab_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.wxh = nn.Parameter(torch.randn(vocab_size, hidden_size) * 0.05)
        self.whh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.why = nn.Parameter(torch.randn(hidden_size, vocab_size) * 0.05)
        self.bh = nn.Parameter(torch.zeros(hidden_size))
        self.by = nn.Parameter(torch.zeros(vocab_size))
        nn.init.orthogonal_(self.whh)

    def init_hidden(self, batch_size):
        return self.wxh.new_zeros(batch_size, self.hidden_size)

    def forward(self, inputs, hidden):
        outputs = []
        for x in inputs.unbind(1):
            hidden = torch.tanh(self.wxh[x] + hidden @ self.whh + self.bh)
            outputs.append(hidden @ self.why + self.by)
        return torch.stack(outputs, 1), hidden


def sample(model, chars, length=40):
    """Greedy text after a letter."""
    with torch.no_grad():
        hidden = model.init_hidden(1)
        x = torch.tensor([[chars.index("t")]])
        out = []
        for _ in range(length):
            logits, hidden = model(x, hidden)
            x = logits[:, -1].argmax(-1, keepdim=True)
            out.append(chars[x.item()])
    return "".join(out)


def train(epochs=30, batch_size=8, seq_length=10):
    chars = sorted(set(TEXT))
    stoi = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([stoi[c] for c in TEXT])
    n = (len(data) - 1) // (batch_size * seq_length) * seq_length
    x = data[: batch_size * n].view(batch_size, n)
    y = data[1 : batch_size * n + 1].view(batch_size, n)
    model = CharRNN(len(chars), 64)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3, alpha=0.95)
    for epoch in range(epochs):
        hidden = model.init_hidden(batch_size)
        for start in range(0, n, seq_length):
            hidden = hidden.detach()
            logits, hidden = model(x[:, start : start + seq_length], hidden)
            target = y[:, start : start + seq_length]
            loss = F.cross_entropy(logits.reshape(-1, len(chars)), target.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.grad.data.clamp_(-5, 5)
            optimizer.step()
            yield loss.item()
        if epoch % 10 == 9:
            print(repr(sample(model, chars)))


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

"""A GPT: trained on text, and writing text without a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bench.models.draws import Draws
from bench.models.framework import F, nn, torch
from bench.models.program import Program, Training


class Size(NamedTuple):
    """Of the network."""

    depth: int = 4
    width: int = 256
    heads: int = 4
    length: int = 128
    vocabulary: int = 5000
    dropout: float = 0.1


_SMALL = Size()


class _Block(nn.Module):
    """Causal self-attention and a feed-forward part, norms first."""

    def __init__(self, draws: Draws, size: Size) -> None:
        super().__init__()
        width = size.width
        self.draws, self.size = draws, size
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x: Any) -> Any:
        """(N, T, width); the attention's own dropout cannot be given, and is left out then."""
        n, t, width = x.shape
        heads = self.size.heads
        q, k, v = (
            part.view(n, t, heads, width // heads).transpose(1, 2)
            for part in self.qkv(x).split(width, 2)
        )
        p = self.size.dropout if self.training and not self.draws.is_given else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.proj(y.transpose(1, 2).contiguous().view(n, t, width))

    def forward(self, x: Any) -> Any:
        drop, p = self.draws.dropout, self.size.dropout
        x = x + drop(self.attend(self.norm1(x)), p, self.training)
        return x + drop(self.fall(F.gelu(self.rise(self.norm2(x)))), p, self.training)


class GPT(nn.Module):
    """Tokens to scores of the next token; the table of tokens is used at both ends."""

    def __init__(self, draws: Draws, size: Size) -> None:
        super().__init__()
        self.draws, self.size = draws, size
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Embedding(size.length, size.width)
        self.blocks = nn.ModuleList([_Block(draws, size) for _ in range(size.depth)])
        self.norm = nn.LayerNorm(size.width)

    def forward(self, tokens: Any) -> Any:
        """(N, T) -> (N, T, vocabulary)."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        x = self.draws.dropout(x, self.size.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight)


class Writing(Training):
    """Predicting every token from those before it, with AdamW."""

    def __init__(self, draws: Draws, size: Size = _SMALL, batch: int = 8, rate: float = 3e-4,
                 batches: int = 8) -> None:  # fmt: skip
        data = [(draws.integers(size.vocabulary, batch, size.length + 1),) for _ in range(batches)]
        self.vocabulary = size.vocabulary
        super().__init__(
            draws, GPT(draws, size).train(), "AdamW", data, lr=rate, weight_decay=0.1
        )  # fmt: skip

    def loss(self, text: Any) -> Any:
        scores = self.net(text[:, :-1])
        return F.cross_entropy(scores.view(-1, self.vocabulary), text[:, 1:].reshape(-1))


class Generating(Program):
    """Writing token by token, each the likeliest; the whole text is read again for each."""

    def __init__(self, draws: Draws, size: Size = _SMALL, count: int = 64) -> None:
        self.net = draws.fill(GPT(draws, size)).eval()
        self.first = [draws.integers(size.vocabulary, 1, 1) for _ in range(8)]
        self.count = count

    def step(self, i: int) -> float:
        text = self.first[i % len(self.first)]
        score: Any = 0.0
        with torch.no_grad():
            for _ in range(self.count):
                scores = self.net(text)[:, -1]
                best, token = scores.max(-1, keepdim=True)
                score = score + best
                text = torch.cat([text, token], 1)
        return score.item()

    def compile(self, compiler: Callable[[Any], Any]) -> None:
        self.net = compiler(self.net)

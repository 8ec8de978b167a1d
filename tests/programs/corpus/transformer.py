"""An encoder-decoder Transformer (Vaswani et al., 2017) that sorts sequences."""

import math

import torch
from torch import Tensor, nn

BOS, VOCAB = 0, 17


class PositionalEncoding(nn.Module):
    def __init__(self, emb_size: int, dropout: float, maxlen: int = 64):
        super().__init__()
        den = torch.exp(-torch.arange(0, emb_size, 2) * math.log(10000) / emb_size)
        pos = torch.arange(0, maxlen).reshape(maxlen, 1)
        pos_embedding = torch.zeros((maxlen, emb_size))
        pos_embedding[:, 0::2] = torch.sin(pos * den)
        pos_embedding[:, 1::2] = torch.cos(pos * den)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pos_embedding", pos_embedding.unsqueeze(-2))

    def forward(self, token_embedding: Tensor):
        return self.dropout(token_embedding + self.pos_embedding[: token_embedding.size(0), :])


class Seq2SeqTransformer(nn.Module):
    def __init__(self, layers=2, emb_size=48, nhead=4, dim_feedforward=96, dropout=0.1):
        super().__init__()
        self.transformer = nn.Transformer(
            d_model=emb_size,
            nhead=nhead,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
        )
        self.generator = nn.Linear(emb_size, VOCAB)
        self.tok_emb = nn.Embedding(VOCAB, emb_size)
        self.positional_encoding = PositionalEncoding(emb_size, dropout=dropout)
        self.scale = math.sqrt(emb_size)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, src: Tensor, trg: Tensor, tgt_mask: Tensor):
        src_emb = self.positional_encoding(self.tok_emb(src) * self.scale)
        tgt_emb = self.positional_encoding(self.tok_emb(trg) * self.scale)
        outs = self.transformer(src_emb, tgt_emb, tgt_mask=tgt_mask)
        return self.generator(outs)


def generate_square_subsequent_mask(sz):
    mask = (torch.triu(torch.ones((sz, sz))) == 1).transpose(0, 1)
    return mask.float().masked_fill(mask == 0, float("-inf")).masked_fill(mask == 1, 0.0)


def noam(step, warmup=40):
    step += 1
    return min(step**-0.5, step * warmup**-1.5) * warmup**0.5


def train(steps=120, length=10, batch=32):
    model = Seq2SeqTransformer()
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.98), eps=1e-9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, noam)
    model.train()
    for _ in range(steps):
        src = torch.randint(1, VOCAB, (length, batch))
        tgt = torch.cat([torch.full((1, batch), BOS), src.sort(0).values])
        tgt_input, tgt_out = tgt[:-1, :], tgt[1:, :]
        logits = model(src, tgt_input, generate_square_subsequent_mask(length))
        optimizer.zero_grad()
        loss = loss_fn(logits.reshape(-1, logits.shape[-1]), tgt_out.reshape(-1))
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

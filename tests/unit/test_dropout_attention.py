"""The chunked CPU form of attention with dropout: same results as torch's, right probabilities, repeatable."""

import pytest
import torch
import torch.nn.functional as F

from mmcondetr.layers import dropout_attention as module
from mmcondetr.layers.dropout_attention import dropout_attention
from mmcondetr.models.attention import DotProductAttention


def make(batch=2, heads=3, queries=7, keys=11, width=8, value_width=4, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((queries, width), (keys, width), (keys, value_width))
    return [torch.randn(batch, heads, *shape, dtype=dtype, requires_grad=True) for shape in shapes]


def padding(batch=2, keys=11):
    mask = torch.zeros(batch, keys, dtype=torch.bool)
    mask[1, -4:] = True
    return mask


@pytest.mark.parametrize('chunk_bytes', [1, 300, 1 << 20])  # one query, some queries, all heads at a time
@pytest.mark.parametrize('masked', [False, True])
def test_without_dropout_it_is_scaled_dot_product_attention(chunk_bytes, masked, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_BYTES', chunk_bytes)
    q, k, v = make()
    mask = padding() if masked else None
    ours = dropout_attention(q, k, v, 0.0, mask)
    torchs = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else ~mask[:, None, None])
    torch.testing.assert_close(ours, torchs, rtol=0, atol=1e-12)
    gradient = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, (q, k, v), gradient), torch.autograd.grad(torchs, (q, k, v), gradient)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize('chunk_bytes', [300, 1 << 20])
def test_gradients_with_dropout_are_those_of_the_forward_pass(chunk_bytes, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_BYTES', chunk_bytes)

    def attend(q, k, v):
        torch.manual_seed(1)  # the same weights are dropped in every call
        return dropout_attention(q, k, v, 0.4, padding())

    assert torch.autograd.gradcheck(attend, make())


def test_the_share_of_dropped_weights_and_their_scale():
    # With one-hot values the output is the dropped weights themselves; equal logits make each 1 / keys before dropout.
    keys, dropout = 64, 0.3
    q, k = torch.zeros(1, 2, 500, 8), torch.zeros(1, 2, keys, 8)
    v = torch.eye(keys).expand(1, 2, keys, keys)
    torch.manual_seed(0)
    weights = dropout_attention(q, k, v, dropout) * keys
    kept = weights != 0
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / (1 - dropout)), rtol=1e-4, atol=0)
    # 64,000 independent draws: the standard deviation of the share is 0.0018; five of them are allowed.
    assert abs(1 - kept.float().mean().item() - dropout) < 0.009
    per_key = 1 - kept.float().mean(dim=(0, 1, 2))
    assert (per_key - dropout).abs().max() < 0.08  # 1,000 draws a key, standard deviation 0.0145
    assert not torch.equal(kept[0, 0], kept[0, 1])


def test_the_seed_decides_what_is_dropped():
    q, k, v = make()

    def attend(seed):
        torch.manual_seed(seed)
        return dropout_attention(q, k, v, 0.5)

    assert torch.equal(attend(3), attend(3))
    assert not torch.equal(attend(3), attend(4))
    torch.manual_seed(3)
    assert not torch.equal(dropout_attention(q, k, v, 0.5), dropout_attention(q, k, v, 0.5))


def test_half_precision_is_computed_in_float32():
    q, k, v = (x.detach().bfloat16() for x in make())
    with torch.autocast('cpu', torch.bfloat16):
        attended = dropout_attention(q, k, v, 0.0)
    assert attended.dtype == torch.bfloat16
    exact = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(attended.float(), exact, rtol=2**-8, atol=1e-6)  # only the result is rounded


def test_dropout_is_for_training_only():
    attention = DotProductAttention(num_heads=2, dropout=0.5)
    x = torch.randn(1, 9, 8)
    exact = DotProductAttention(num_heads=2, dropout=0.0)((x,), (x,), x)
    assert not torch.allclose(attention.train()((x,), (x,), x), exact)
    torch.testing.assert_close(attention.eval()((x,), (x,), x), exact)

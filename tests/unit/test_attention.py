"""Attention against its formulas, on every path that a call can take."""

import pytest
import torch
from torch import nn

from mmcondetr.models.attention import (
    ConditionalCrossAttention,
    DotProductAttention,
    FirstConditionalCrossAttention,
    Memory,
    SelfAttention,
    check_heads,
)
from mmcondetr.models.encoder import EncoderSelfAttention

B, N, S, D, H = 2, 5, 7, 16, 4


def explicit(queries, keys, value, mask=None):
    """softmax of the sum of the parts' inner products, head by head, with loops."""
    result = torch.zeros(B, queries[0].shape[1], D, dtype=value.dtype)
    width = D // H
    for b in range(B):
        for h in range(H):
            channels = slice(h * width, (h + 1) * width)
            logits = sum(q[b, :, channels] @ k[b, :, channels].T for q, k in zip(queries, keys))
            logits = logits / (width * len(queries)) ** 0.5
            if mask is not None:
                logits = logits.masked_fill(mask[b], float('-inf'))
            result[b, :, channels] = logits.softmax(-1) @ value[b, :, channels]
    return result


def tensors(*tokens):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, count, D, generator=generator, dtype=torch.float64) for count in tokens]


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('parts', [1, 2])
def test_logits_are_the_sum_of_the_parts_inner_products(parts, masked):
    queries, keys, (value,) = tensors(*[N] * parts), tensors(*[S] * parts), tensors(S)
    mask = None
    if masked:
        mask = torch.zeros(B, S, dtype=torch.bool)
        mask[1, 4:] = True
    attended = DotProductAttention(H, dropout=0.0)(queries, keys, value, mask)
    torch.testing.assert_close(attended, explicit(queries, keys, value, mask), rtol=0, atol=1e-12)


def test_a_part_shared_by_the_batch_needs_no_copy():
    (query,), (key, value) = tensors(N), tensors(S, S)
    shared_query, shared_key = query[:1], key[:1]
    attended = DotProductAttention(H, 0.0)((query, shared_query), (key, shared_key), value)
    copied = DotProductAttention(H, 0.0)(
        (query, shared_query.repeat(B, 1, 1)), (key, shared_key.repeat(B, 1, 1)), value
    )
    assert torch.equal(attended, copied)


def test_padded_keys_change_nothing():
    (query,), (key, value) = tensors(N), tensors(S, S)
    attention = DotProductAttention(H, 0.0)
    mask = torch.zeros(B, S + 3, dtype=torch.bool)
    mask[:, S:] = True
    padded_key, padded_value = (torch.cat((x, torch.full((B, 3, D), 9.0, dtype=x.dtype)), dim=1) for x in (key, value))
    torch.testing.assert_close(
        attention((query,), (padded_key,), padded_value, mask), attention((query,), (key,), value), rtol=0, atol=1e-12
    )


def test_the_encoders_attention_is_torchs_with_positions_on_queries_and_keys():
    ours = EncoderSelfAttention(D, H).double().eval()
    torchs = nn.MultiheadAttention(D, H, batch_first=True).double().eval()
    torchs.load_state_dict(
        {
            'in_proj_weight': ours.in_proj.weight,
            'in_proj_bias': ours.in_proj.bias,
            'out_proj.weight': ours.out_proj.weight,
            'out_proj.bias': ours.out_proj.bias,
        }
    )
    tokens, position = tensors(S, S)
    both = tokens + position
    torch.testing.assert_close(ours(tokens, position), torchs(both, both, tokens)[0], rtol=0, atol=1e-12)


def test_the_decoders_self_attention_adds_position_to_content():
    module = SelfAttention(D, H).double().eval()
    f, object_query = tensors(N, N)
    q = module.query_content_proj(f) + module.query_position_proj(object_query)
    k = module.key_content_proj(f) + module.key_position_proj(object_query)
    expected = module.out_proj(explicit([q], [k], module.value_proj(f)))
    torch.testing.assert_close(module(f, object_query), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('first', [False, True])
def test_conditional_cross_attention_is_eq_3(first):
    module = (FirstConditionalCrossAttention if first else ConditionalCrossAttention)(D, H).double().eval()
    c_q, p_q, object_query = tensors(N, N, N)
    memory, position = tensors(S, S)
    content_query, content_key = module.query_content_proj(c_q), module.key_content_proj(memory)
    p_k = module.key_position_proj(position)
    if first:  # §3.5
        content_query, content_key = content_query + module.query_position_proj(object_query), content_key + p_k
    expected = module.out_proj(
        explicit([content_query, module.query_spatial_proj(p_q)], [content_key, p_k], module.value_proj(memory))
    )
    torch.testing.assert_close(
        module(c_q, p_q, Memory(memory, position), *([object_query] if first else [])), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize('heads', [0, 3, 32])
def test_channels_must_divide_among_the_heads(heads):
    with pytest.raises(ValueError, match=f'embed_dims={D} must be a multiple of num_heads={heads}'):
        check_heads(D, heads)

"""Attention in matrix products is torch's, whatever the chunks; it is taken in bfloat16 inference on a CPU alone."""

import pytest
import torch
import torch.nn.functional as F

from mmcondetr.layers import explicit_attention as module
from mmcondetr.models.attention import DotProductAttention


@pytest.mark.parametrize('chunk', [1, 3000, 4 << 20])
@pytest.mark.parametrize('padded', [False, True])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_torchs_whatever_the_chunks(chunk, padded, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_BYTES', chunk)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, tokens, width, dtype=dtype) for tokens, width in ((37, 16), (50, 16), (50, 8)))
    mask = None
    if padded:
        mask = torch.zeros(2, 50, dtype=torch.bool)
        mask[1, 30:] = True
    found = module.explicit_attention(q, k, v, mask)
    wanted = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=None if mask is None else ~mask[:, None, None, :]
    )
    assert found.dtype == dtype and found.shape == (2, 4, 37, 8)
    torch.testing.assert_close(found.float(), wanted, atol=tolerance, rtol=0)
    if padded:
        v[1, :, 30:] = 1e4  # a padded key's value counts nothing
        assert torch.equal(module.explicit_attention(q, k, v, mask), found)


def test_it_is_taken_in_inference_in_bf16_on_a_cpu_with_such_instructions(monkeypatch):
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: True, raising=False)
    x = torch.zeros(1, 4, 8, 16, dtype=torch.bfloat16)
    assert not module.is_faster(x)  # with gradients
    with torch.no_grad():
        assert module.is_faster(x) and not module.is_faster(x.float()) and not module.is_faster(x.half())
        monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)
        assert not module.is_faster(x)


@torch.no_grad()
def test_the_models_attention_takes_it(monkeypatch):
    attention = DotProductAttention(4, 0.0).eval()
    queries, keys = (tuple(torch.randn(2, n, 32).bfloat16() for _ in range(2)) for n in (9, 21))
    value = torch.randn(2, 21, 32).bfloat16()
    results = []
    for supported in (True, False):
        monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda given=supported: given, raising=False)
        results.append(attention(queries, keys, value).float())
    assert results[0].shape == (2, 9, 32)
    torch.testing.assert_close(*results, atol=2e-2, rtol=0)
    assert not torch.equal(*results)  # another computation was taken

"""No attention matrix: the memory of an encoder layer and of a cross-attention grows with the tokens, not their square.

Counted in bytes by the allocator's own record, at the number of tokens that a DC5 image has.
"""

import pytest
import torch
from tiny_model import TORCH
from torch.profiler import ProfilerActivity, profile

from mmcondetr.models.attention import DotProductAttention
from mmcondetr.models.encoder import TransformerEncoderLayer

HEADS = 8


def peak_bytes(function) -> int:
    """The most bytes that were allocated at once while ``function`` ran, by the allocator's own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    allocated = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == '[memory]':
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def run_layer(tokens: int, training: bool, padded: bool):
    layer = TransformerEncoderLayer(256, HEADS, 2048, dropout=0.1).train(training)
    x, position = torch.randn(1, tokens, 256), torch.randn(1, tokens, 256)
    mask = torch.zeros(1, tokens, dtype=torch.bool) if padded else None
    if padded:
        mask[:, -50:] = True

    def step():
        with torch.set_grad_enabled(training):
            result = layer(x, position, mask)
        if training:
            result.sum().backward()

    return step


@pytest.mark.parametrize('padded', [False, True], ids=['whole', 'padded'])
@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
def test_an_encoder_layers_memory_grows_linearly_with_tokens(training, padded):
    if padded and not training and TORCH < (2, 3):
        pytest.skip("before torch 2.3 the CPU's fused attention takes no mask")
    sizes = (840, 1680, 3360)  # the last: the tokens of an 800 x 1066 image at stride 16
    peaks = [peak_bytes(run_layer(size, training, padded)) for size in sizes]
    matrix = HEADS * sizes[-1] ** 2 * 4
    assert peaks[-1] < matrix / 2, 'an attention matrix would need 361 MB'
    # Doubling the tokens at most doubles the memory, but for what does not depend on them (weights' gradients, chunks).
    assert peaks[1] <= 2.05 * peaks[0] and peaks[2] <= 2.05 * peaks[1]
    assert peaks[2] >= 1.3 * peaks[1], 'the record is empty: nothing was measured'


@pytest.mark.parametrize('training', [False, True], ids=['inference', 'training'])
def test_cross_attention_allocates_no_matrix(training):
    queries, tokens = 900, 3360
    attention = DotProductAttention(HEADS, dropout=0.1).train(training)
    content, spatial = torch.randn(2, 1, queries, 256)
    keys = torch.randn(2, 1, tokens, 256)
    value = torch.randn(1, tokens, 256, requires_grad=training)

    def step():
        result = attention((content, spatial), tuple(keys), value)
        if training:
            result.sum().backward()

    assert peak_bytes(step) < HEADS * queries * tokens * 4 / 3


def test_the_record_sees_an_explicit_attention_matrix():
    q = torch.randn(HEADS, 1680, 32)
    assert peak_bytes(lambda: (q @ q.transpose(1, 2)).softmax(-1) @ q) >= HEADS * 1680**2 * 4

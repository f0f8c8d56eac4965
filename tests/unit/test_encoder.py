"""The encoder against torch's own layer, with padding and without."""

import pytest
import torch
from torch import nn

from mmcondetr.models.encoder import TransformerEncoder, TransformerEncoderLayer

D, H, S = 16, 4, 9


def inputs():
    generator = torch.Generator().manual_seed(0)
    tokens, position = torch.randn(2, 2, S, D, generator=generator, dtype=torch.float64)
    mask = torch.zeros(2, S, dtype=torch.bool)
    mask[1, 6:] = True
    return tokens, position, mask


@pytest.mark.parametrize('masked', [False, True])
def test_a_layer_without_positions_is_torchs_post_norm_layer(masked):
    torch.manual_seed(0)
    ours = TransformerEncoderLayer(D, H, 32, dropout=0.1).double().eval()
    torchs = nn.TransformerEncoderLayer(D, H, 32, batch_first=True).double().eval()
    names = {'ffn.linear': 'linear', 'in_proj.': 'in_proj_'}
    state = {}
    for name, value in ours.state_dict().items():
        for a, b in names.items():
            name = name.replace(a, b)
        state[name] = value
    torchs.load_state_dict(state)
    tokens, position, mask = inputs()
    mask = mask if masked else None
    expected = torchs(tokens, src_key_padding_mask=mask)
    result = ours(tokens, torch.zeros_like(position), mask)
    kept = slice(None) if mask is None else ~mask  # what padded tokens become is nobody's business
    torch.testing.assert_close(result[kept], expected[kept], rtol=0, atol=1e-10)


def test_one_position_serves_all_images_and_enters_every_layer():
    config = dict(type='mmcondetr.TransformerEncoderLayer', embed_dims=D, num_heads=H, feedforward_channels=32)
    encoder = TransformerEncoder(num_layers=2, layer=config).double().eval()
    tokens, position, _ = inputs()
    shared = encoder(tokens, position[:1])
    assert torch.equal(shared, encoder(tokens, position[:1].repeat(2, 1, 1)))
    by_hand = encoder.layers[1](encoder.layers[0](tokens, position[:1]), position[:1])
    assert torch.equal(shared, by_hand)
    assert not torch.allclose(shared, encoder.layers[1](encoder.layers[0](tokens, position[:1]), position[:1] * 0))


def test_padded_tokens_do_not_reach_the_others():
    encoder = (
        TransformerEncoder(
            num_layers=2,
            layer=dict(type='mmcondetr.TransformerEncoderLayer', embed_dims=D, num_heads=H, feedforward_channels=32),
        )
        .double()
        .eval()
    )
    tokens, position, mask = inputs()
    before = encoder(tokens, position, mask)
    tokens[1, 6:] = 100.0
    after = encoder(tokens, position, mask)
    torch.testing.assert_close(after[~mask], before[~mask], rtol=0, atol=1e-12)

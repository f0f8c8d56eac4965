"""DETR's decoder layer against mmdet's."""

import torch
from mmdet.models.layers import DetrTransformerDecoderLayer

from mmcondetr.models.attention import Memory
from mmcondetr.registry import MODELS

D, N, S = 32, 6, 9


def layer(kind: str = 'AdditiveDecoderLayer', index: int = 1):
    torch.manual_seed(0)
    return MODELS.build(
        dict(type=f'mmcondetr.{kind}', embed_dims=D, num_heads=4, feedforward_channels=64, dropout=0.0, index=index)
    ).eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    f, query = torch.randn(2, 2, N, D, generator=generator).unbind()
    memory, position = torch.randn(2, 2, S, D, generator=generator).unbind()
    mask = torch.zeros(2, S, dtype=torch.bool)
    mask[1, 5:] = True
    return f, query, memory, position, mask


def run(decoder_layer, f, query, memory, position, mask):
    c_q = decoder_layer.self_attend(f, query)
    return decoder_layer.cross_attend(c_q, query, Memory(memory, position, mask), query)


def test_layer_equals_mmdets():
    ours = layer()
    attention = dict(embed_dims=D, num_heads=4, batch_first=True)
    theirs = DetrTransformerDecoderLayer(
        self_attn_cfg=dict(attention),
        cross_attn_cfg=dict(attention),
        ffn_cfg=dict(
            embed_dims=D, feedforward_channels=64, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True)
        ),
    ).eval()
    names = {
        'attn.in_proj_': 'in_proj.',
        'attn.out_proj': 'out_proj',
        'ffn.layers.0.0': 'ffn.linear1',
        'ffn.layers.1': 'ffn.linear2',
        'norms.0': 'norm1',
        'norms.1': 'norm2',
        'norms.2': 'norm3',
    }
    tensors = ours.state_dict()
    for name in theirs.state_dict():
        own = name
        for theirs_part, ours_part in names.items():
            own = own.replace(
                f'.{theirs_part}' if theirs_part.startswith('attn') else theirs_part,
                f'.{ours_part}' if theirs_part.startswith('attn') else ours_part,
            )
        theirs.get_parameter(name).data.copy_(tensors.pop(own))
    assert not tensors
    f, query, memory, position, mask = inputs()
    expected = theirs(f, memory, memory, query_pos=query, key_pos=position, key_padding_mask=mask)
    assert torch.allclose(run(ours, f, query, memory, position, mask), expected, rtol=0, atol=1e-5)


def test_footnote_1_ignores_positions_in_cross_attention_from_the_second_layer_on():
    f, query, memory, position, mask = inputs()
    first, second = layer('FirstPositionDecoderLayer', 0), layer('FirstPositionDecoderLayer', 1)
    assert torch.equal(run(first, f, query, memory, position, mask), run(layer(), f, query, memory, position, mask))
    assert torch.equal(run(second, f, query, memory, position, mask), run(second, f, query, memory, 0 * position, mask))
    assert not torch.equal(
        run(second, f, query, memory, position, mask), run(second, f, 0 * query, memory, position, mask)
    )  # self-attention keeps it

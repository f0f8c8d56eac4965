"""DETR's decoder layer against mmdet's, and DETR's classification."""

import torch
import torch.nn.functional as F
from mmdet.models.layers import DetrTransformerDecoderLayer
from tiny_model import batch, build
from tiny_variants import ROOT, tiny_variant

from mmcondetr.models.matching import Matches
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
    return decoder_layer.cross_attend(decoder_layer.self_attend(f, query), f, query, memory, position, mask)


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


def softmax_head():
    return build(tiny_variant(ROOT / 'configs/ablations/detr_r50_additive_8xb2-50e_coco.py')).bbox_head


def test_classification_is_the_weighted_mean_cross_entropy_of_every_layer():
    head = softmax_head()
    logits = torch.randn(3, 2, N, 6)
    matches = Matches(*torch.tensor([[0, 0, 1, 2], [0, 1, 1, 0], [3, 2, 0, 5], [0, 0, 0, 0]]))
    classes = torch.tensor([1, 4, 4, 0])
    target = torch.full((3, 2, N), 5)
    target[matches.predictions] = classes
    weight = torch.tensor([1.0] * 5 + [0.1])
    loss = head.classification_loss(logits, matches, classes, torch.tensor(7.0)).sum(dim=1)
    for index in range(3):
        expected = F.cross_entropy(logits[index].flatten(0, 1), target[index].flatten(), weight)
        assert torch.allclose(loss[index], expected, rtol=1e-5, atol=0)


def test_matching_cost_of_a_class_is_minus_its_probability():
    matcher = softmax_head().matcher
    logits, wanted = torch.randn(1, 1, N, 6), torch.tensor([[[[2, 0]]]]).expand(1, 1, N, 2)
    probabilities = logits.softmax(-1)
    expected = -torch.stack([probabilities[..., 2], probabilities[..., 0]], dim=-1)
    assert torch.equal(matcher.classification_cost(logits, wanted), expected)
    assert matcher.class_cost == 1.0


def test_background_is_never_predicted():
    model, (images, samples) = build(tiny_variant(ROOT / 'configs/ablations/detr_r50_or_8xb2-50e_coco.py')), batch()
    model.bbox_head.class_embed.bias.data[-1] = 100.0
    result = model(images, samples, mode='predict')[0].pred_instances
    assert result.labels.max() < 5 and result.scores.max() < 1e-6

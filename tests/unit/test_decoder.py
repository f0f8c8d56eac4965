"""The decoder's loop: §3.3 written out, the first layer of §3.5, moving positions, and what additive layers require."""

import copy

import pytest
import torch
from tiny_model import build, tiny_config
from tiny_variants import ROOT, tiny_variant

from mmcondetr.models.attention import FirstConditionalCrossAttention, Memory
from mmcondetr.models.positional import sine_embed

D, N, S = 32, 12, 9


@pytest.fixture
def decoder():
    return build(tiny_config()).decoder


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    object_query = torch.randn(1, N, D, generator=generator)
    content, position = torch.randn(2, 2, S, D, generator=generator).unbind()
    mask = torch.zeros(2, S, dtype=torch.bool)
    mask[1, 6:] = True
    return object_query, Memory(content, position, mask)


def test_the_loop_is_section_3_3_written_out(decoder, inputs):
    o_q, memory = inputs
    hidden_states, references = decoder(o_q, memory)
    s = decoder.reference_point.predictor(o_q)
    p_s = sine_embed(s.sigmoid(), D)
    f = torch.zeros(2, N, D)
    for index, layer in enumerate(decoder.layers):
        c_q = layer.norm1(f + layer.self_attn(f, o_q))
        if index == 0:  # §3.5
            attended = layer.cross_attn(c_q, p_s, memory, o_q)
        else:
            attended = layer.cross_attn(c_q, decoder.spatial_query.predictor(f) * p_s, memory)
        f = layer.norm2(c_q + attended)
        f = layer.norm3(f + layer.ffn(f))
        torch.testing.assert_close(hidden_states[index], decoder.norm(f), rtol=0, atol=1e-6)
        torch.testing.assert_close(references[index], s.expand(2, -1, -1), rtol=0, atol=0)
    assert hidden_states[-1].std(dim=1).mean() > 0.03  # queries are apart, so that agreement means something


def test_the_first_layer_has_no_transform_and_only_it_adds_the_object_query(decoder, inputs):
    calls = []
    decoder.spatial_query.register_forward_hook(lambda module, args, output: calls.append(args[0]))
    decoder(*inputs)
    assert len(calls) == len(decoder.layers) - 1
    first = [isinstance(layer.cross_attn, FirstConditionalCrossAttention) for layer in decoder.layers]
    assert first == [True, False, False]
    assert [hasattr(layer.cross_attn, 'query_position_proj') for layer in decoder.layers] == first


def test_the_object_query_reaches_the_first_cross_attention(decoder, inputs):
    o_q, memory = inputs
    layer = decoder.layers[0]
    f, c_q = torch.randn(2, 2, N, D).unbind()
    assert not torch.equal(layer.cross_attend(c_q, f, memory, o_q), layer.cross_attend(c_q, f, memory, 0 * o_q))


def test_hidden_states_do_not_depend_on_what_is_padded(decoder, inputs):
    o_q, memory = inputs
    other = memory.content.clone()
    other[1, 6:] = 100.0
    expected, found = decoder(o_q, memory)[0], decoder(o_q, memory._replace(content=other))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_queries_may_differ_by_image(decoder, inputs):
    o_q, memory = inputs
    both = torch.cat([o_q, o_q.flip(1)])
    hidden_states, references = decoder(both, memory)
    assert references.shape == (3, 2, N, 2)
    expected = decoder(o_q, Memory(*[part[:1] for part in memory]))[0]
    torch.testing.assert_close(hidden_states[:, :1], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(references[:, 0], references[:, 1], rtol=0, atol=1e-3)


def test_anchor_boxes_of_a_copied_model_move_by_the_copys_own_head():
    model = build(tiny_variant(ROOT / 'configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py'))
    copied = copy.deepcopy(model)
    assert copied.decoder.reference_point.box_embed.__self__ is copied.bbox_head.box_embed
    assert not any('reference_point.box_embed' in name for name in model.state_dict())


def test_an_additive_decoder_says_which_reference_points_fit_it():
    config = tiny_variant(ROOT / 'configs/ablations/detr_r50_or_8xb2-50e_coco.py')
    config['decoder']['reference_point']['type'] = 'mmcondetr.ReferencePoint'
    decoder = build(config).decoder
    with pytest.raises(ValueError, match='decoder.reference_point must be AdditiveReferencePoint or AdditiveZero'):
        decoder(torch.randn(1, N, D), Memory(torch.randn(1, S, D), torch.randn(1, S, D)))


def test_an_additive_decoder_refuses_a_transform():
    config = tiny_variant(ROOT / 'configs/ablations/detr_r50_or_8xb2-50e_coco.py')
    config['decoder']['spatial_query']['type'] = 'mmcondetr.ConditionalSpatialQueryHead'
    with pytest.raises(ValueError, match='spatial_query must be PositionSpatialQuery, got ConditionalSpatialQueryHead'):
        build(config)

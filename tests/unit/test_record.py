"""Recording attention: the maps are those the model attends with, at the right place in the image."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from tiny_files import tiny_detr_config
from tiny_model import batch, build, sample, tiny_config
from tiny_variants import VARIANTS, tiny_variant

from mmcondetr.errors import UserError
from mmcondetr.models.attention import DotProductAttention
from mmcondetr.visualization import record_attention
from mmcondetr.visualization.maps import AttentionParts, TokenGrid, compute_maps


def run(model, **options):
    images, samples = batch()
    with torch.no_grad(), record_attention(model, **options) as recorded:
        output = model(images, samples, mode='tensor')
    return recorded, output


@pytest.fixture(scope='module')
def model():
    return build(tiny_config())


@pytest.fixture(scope='module')
def detr():
    return build(tiny_detr_config())


def test_recording_changes_nothing_and_leaves_no_hooks(model):
    images, samples = batch()
    with torch.no_grad():
        before = model(images, samples, mode='tensor')
    _, output = run(model, encoder_layers=[0])
    assert all(torch.equal(one, other) for one, other in zip(before, output))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize('layer', [0, 1, 2])
def test_combined_maps_reproduce_the_fast_attention(model, layer):
    """Tolerance 1e-5: the recorded softmax times the values is what the fused kernel returned."""
    noted = {}

    def note(module, args, output):
        noted['value'], noted['output'] = args[2], output

    handle = model.decoder.layers[layer].cross_attn.attention.register_forward_hook(note)
    recorded, _ = run(model)
    handle.remove()
    for image in range(2):
        record = recorded[image]
        maps = record.combined(layer)  # (N, H, h, w)
        rows, columns = record.grid.shape
        value = noted['value'][image].view(rows, columns, 4, 8)[: maps.shape[-2], : maps.shape[-1]]
        attended = torch.einsum('qhyx,yxhd->qhd', maps, value).flatten(1)
        torch.testing.assert_close(attended, noted['output'][image], rtol=0, atol=1e-5)


def test_maps_follow_the_definitions(model):
    """Spatial and content maps equal an explicit softmax with the scale 1 / sqrt(2 D / H) = 1/4."""
    recorded, _ = run(model)
    parts = recorded.decoder[2]
    maps = recorded[0].maps(layer=2, queries=[5], heads=[1])
    for part, found in ((0, maps.content), (1, maps.spatial)):
        query, key = parts.queries[part], parts.keys[part]
        q, k = query[0, 5, 8:16], key[0, :, 8:16]
        expected = (k @ q / 4).softmax(dim=0).view(recorded[0].grid.shape)
        torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-6)
    product = maps.spatial * maps.content
    torch.testing.assert_close(maps.combined, product / product.sum(), rtol=0, atol=1e-6)
    assert maps.spatial.std() > 1e-4, 'the maps must not be flat, or this test shows nothing'


@pytest.mark.parametrize('path', VARIANTS, ids=lambda path: path.stem)
def test_every_variant_is_recorded(path):
    """DETR's additive layers and DAB-DETR's boxes included: maps times values are what attention returned; 1e-5."""
    variant = build(tiny_variant(path))
    noted = []
    handle = variant.decoder.layers[1].cross_attn.attention.register_forward_hook(
        lambda module, args, output: noted.append((args[2], output))
    )
    recorded, (logits, boxes) = run(variant)
    handle.remove()
    (value, output), record = noted[0], recorded[0]
    queries = logits.shape[2]  # three times num_queries with three patterns
    maps = record.maps(1)
    attended = torch.einsum('qhyx,yxhd->qhd', maps.combined, value[0].view(3, 4, 4, 8)).flatten(1)
    torch.testing.assert_close(attended, output[0], rtol=0, atol=1e-5)
    assert maps.spatial.shape == (queries, 4, 3, 4) and record.is_additive == ('detr_r50' == path.stem[:8])
    assert record.references.shape == (3, queries, 2)
    torch.testing.assert_close(record.boxes[-1][:, 2] - record.boxes[-1][:, 0], boxes[-1, 0, :, 2] * 128)


def test_every_map_sums_to_one_without_the_padding(model):
    recorded, _ = run(model)
    record = recorded[1]
    assert record.grid.shape == (3, 4)
    assert record.grid.valid == (3, 4)  # 70 of 96 rows touch the third cell, 100 of 128 columns the fourth
    for layer in range(3):
        for found in record.maps(layer):
            assert found.shape == (12, 4, 3, 4)
            torch.testing.assert_close(found.sum(dim=(-2, -1)), torch.ones(12, 4), rtol=0, atol=1e-5)


def test_padding_is_cut_off(model):
    images = torch.randn(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    samples = [sample((128, 256), (128, 256), [], []), sample((60, 120), (128, 256), [], [])]
    with torch.no_grad(), record_attention(model) as recorded:
        model(images, samples, mode='tensor')
    assert recorded[1].grid.shape == (4, 8) and recorded[1].grid.valid == (2, 4)
    assert recorded[0].grid.valid == (4, 8)
    maps = recorded[1].maps(queries=[0, 3])
    assert maps.combined.shape == (2, 4, 2, 4)
    torch.testing.assert_close(maps.combined.sum(dim=(-2, -1)), torch.ones(2, 4), rtol=0, atol=1e-5)


def test_first_layer_says_that_its_content_includes_positions(model, detr):
    recorded, _ = run(model)
    assert [recorded[0].content_includes_position(layer) for layer in (0, 1, -1, -3)] == [True, False, False, True]
    recorded, _ = run(detr)
    assert not any(recorded[0].content_includes_position(layer) for layer in range(3))


def test_boxes_scores_and_references_of_every_layer(model):
    recorded, (logits, boxes) = run(model)
    record = recorded[1]
    torch.testing.assert_close(record.scores, logits[:, 1].sigmoid())
    centre, size = boxes[:, 1].split(2, dim=-1)
    whole = torch.tensor([100.0, 70.0])  # the original image, width and height
    torch.testing.assert_close(record.boxes[..., :2], (centre - size / 2) * whole)
    torch.testing.assert_close(record.boxes[..., 2:], (centre + size / 2) * whole)
    expected = model.decoder.reference_point(model.query_embedding.weight[None])[0].sigmoid() * whole
    assert record.references.shape == (3, 12, 2)
    torch.testing.assert_close(record.references[2], expected)


def test_only_what_was_asked_for_is_kept(model):
    recorded, _ = run(model, layers=[-1], queries=[7, 2])
    record = recorded[0]
    assert record.layers == [2] and recorded.decoder[2].queries[0].shape[1] == 2 and not recorded.encoder
    full, _ = run(model)
    torch.testing.assert_close(record.maps(queries=[2]).spatial, full[0].maps(queries=[2]).spatial)
    assert record.maps().combined.shape[0] == 2
    with pytest.raises(UserError, match='layer 0 was not recorded; recorded are'):
        record.maps(layer=0)
    with pytest.raises(UserError, match=r'Queries \[3\] were not recorded'):
        record.maps(queries=[3])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(layers=[3]), 'no decoder layer 3: this model has 3'),
        (dict(encoder_layers=[2]), 'no encoder layer 2'),
    ],
)
def test_indices_out_of_range(model, options, message):
    with pytest.raises(UserError, match=message), record_attention(model, **options):
        raise AssertionError('must not get here')
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_query_out_of_range(model):
    with pytest.raises(UserError, match='no query 12: this model has 12, numbered 0 to 11'):
        run(model, queries=[3, 12])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_asking_for_a_head_or_query_that_is_not_there(model):
    recorded, _ = run(model)
    with pytest.raises(UserError, match='no head 4: this model has 4'):
        recorded[0].maps(heads=[4])
    with pytest.raises(UserError, match='no query -1'):
        recorded[0].maps(queries=[-1])
    with pytest.raises(UserError, match='Nothing has been recorded yet'), record_attention(model) as empty:
        empty[0]


def test_encoder_attention_of_a_position(model):
    recorded, _ = run(model, encoder_layers=[-1])
    record = recorded[0]
    maps = record.encoder_maps([(100.0, 50.0)])  # column 3 of 4, row 1 of 3
    parts = recorded.encoder[1]
    q, k = parts.queries[0][0, 1 * 4 + 3, :8], parts.keys[0][0, :, :8]
    torch.testing.assert_close(maps[0, 0].flatten(), (k @ q / 8**0.5).softmax(dim=0), rtol=0, atol=1e-6)
    with pytest.raises(UserError, match='outside the image of 128x96'):
        record.encoder_maps([(128.0, 3.0)])
    with pytest.raises(UserError, match='Encoder layer 0 was not recorded'):
        record.encoder_maps([(1.0, 1.0)], layer=0)


@pytest.mark.parametrize('side', ['decoder', 'encoder'])
def test_detr_maps_are_those_it_attends_with(detr, side):
    """nn.MultiheadAttention's own averaged weights agree with the combined maps, padding included; 1e-6."""
    noted = {}

    def note(module, args, kwargs):
        noted['weights'] = module(
            kwargs['query'],
            kwargs['key'],
            kwargs['value'],
            need_weights=True,
            average_attn_weights=False,
            key_padding_mask=kwargs['key_padding_mask'],
        )[1]

    layer = detr.decoder.layers[1].cross_attn if side == 'decoder' else detr.encoder.layers[1].self_attn
    calls = []

    def guard(module, args, kwargs):
        if not calls:
            calls.append(1)
            note(module, args, kwargs)

    handle = layer.attn.register_forward_pre_hook(guard, with_kwargs=True)
    recorded, _ = run(detr, encoder_layers=[1])
    handle.remove()
    for image in range(2):
        record = recorded[image]
        if side == 'decoder':
            found, expected = record.combined(1), noted['weights'][image].transpose(0, 1)
        else:
            found, expected = record.encoder_maps([(70.0, 40.0)], 1), noted['weights'][image][:, 1 * 4 + 2][None]
        torch.testing.assert_close(found.flatten(2), expected, rtol=0, atol=1e-6)


def test_detr_spatial_map_is_the_papers(detr):
    """softmax((o_q + c_q) . p_k): equals a direct computation from the layer's inputs; 1e-6."""
    noted = {}
    layer = detr.decoder.layers[2].cross_attn
    handle = layer.register_forward_pre_hook(lambda m, a, k: noted.update(k), with_kwargs=True)
    recorded, _ = run(detr)
    handle.remove()
    weight, bias = layer.attn.in_proj_weight, layer.attn.in_proj_bias
    q = F.linear(noted['query'] + noted['query_pos'], weight[:32], bias[:32])[0, 4, 8:16]
    k = F.linear(noted['key_pos'], weight[32:64])[0, :, 8:16]
    found = recorded[0].maps(2, [4], [1]).spatial.flatten()
    torch.testing.assert_close(found, (k @ q / 8**0.5).softmax(dim=0), rtol=0, atol=1e-6)
    assert recorded[0].references is None
    assert recorded[0].scores.sum(dim=-1).max() < 1, 'the background is left out of the softmax'


def test_unsupported_models_are_named(model):
    with pytest.raises(UserError, match='Linear.*cannot be recorded'), record_attention(torch.nn.Linear(2, 2)):
        pass
    config = tiny_detr_config()
    layer = dict(
        self_attn_cfg=dict(embed_dims=32, num_heads=4),
        cross_attn_cfg=dict(embed_dims=32, num_heads=4),
        ffn_cfg=dict(embed_dims=32, feedforward_channels=64),
    )
    config.update(type='mmdet.ConditionalDETR', decoder=dict(num_layers=1, return_intermediate=True, layer_cfg=layer))
    config['bbox_head'].update(type='mmdet.ConditionalDETRHead', loss_cls=dict(type='mmdet.FocalLoss'))
    theirs = MODELS.build(config)
    with pytest.raises(UserError, match="type='mmcondetr.ConditionalDETR', which is"), record_attention(theirs):
        pass


def test_hot_spot_is_found_again_on_the_original_image():
    """A token of a padded input, resized to the original image, peaks at that token's centre, to half a pixel."""
    grid = TokenGrid(shape=(8, 10), valid=(6, 7), input_shape=(256, 320), img_shape=(180, 216), ori_shape=(360, 432))
    weights = torch.zeros(80)
    weights[3 * 10 + 5] = 1.0
    resized = grid.resize(grid.cut(weights)[None])
    assert resized.shape == (1, 360, 432)
    y, x = divmod(int(resized.argmax()), 432)
    # cells of 32 pixels in the input, 64 in the original image: token (3, 5) is centred at (3.5, 5.5) * 64
    assert abs(y + 0.5 - 3.5 * 64) <= 1 and abs(x + 0.5 - 5.5 * 64) <= 1
    assert resized.max() <= 1 and resized[0, 3 * 64 - 40, 5 * 64] == 0
    assert grid.token_at(5.5 * 64, 3.5 * 64) == 35
    y, x = divmod(int(grid.resize(grid.cut(weights)[None], (90, 108)).argmax()), 108)
    assert abs(y + 0.5 - 3.5 * 16) <= 0.5 and abs(x + 0.5 - 5.5 * 16) <= 0.5


def test_hot_spot_through_a_padded_batch(model):
    """A key that answers one query lights up in the cell it came from, in the padded image of a batch."""
    images = torch.randn(2, 3, 128, 256, generator=torch.Generator().manual_seed(1))
    small = sample((64, 160), (128, 256), [], [])
    small.set_metainfo(dict(ori_shape=(128, 320)))
    samples = [sample((128, 256), (128, 256), [], []), small]

    def light(module, args, kwargs):
        queries, keys, value, mask = args
        key = torch.zeros_like(keys[0]).repeat(2 // len(keys[0]), 1, 1)
        key[1, 1 * 8 + 3] = 50 * queries[0][1, 4]  # row 1, column 3
        return (queries, (key, torch.zeros_like(keys[1])), value, mask), kwargs

    attention = model.decoder.layers[2].cross_attn.attention
    assert isinstance(attention, DotProductAttention)
    handle = attention.register_forward_pre_hook(light, with_kwargs=True)
    with torch.no_grad(), record_attention(model) as recorded:
        model(images, samples, mode='tensor')
    handle.remove()
    record = recorded[1]
    resized = record.resize(record.maps(2, [4]).combined)[0].mean(dim=0)
    assert resized.shape == (128, 320)
    y, x = divmod(int(resized.argmax()), 320)
    assert (y // 64, x // 64) == (1, 3)  # cells of 32 pixels, doubled in the original


def test_one_part_has_a_combined_map_only():
    parts = AttentionParts((torch.randn(1, 3, 8),), (torch.randn(1, 4, 8),), None, 2, 0.5)
    grid = TokenGrid((2, 2), (2, 2), (4, 4), (4, 4), (4, 4))
    with pytest.raises(UserError, match='only a combined'):
        compute_maps(parts, 0, [0], [0], grid)


DC5_SIZED = """
import resource, sys
import torch
from tiny_model import build, tiny_config
from mmcondetr.visualization import record_attention

layer = dict(embed_dims=256, num_heads=8, feedforward_channels=512)
config = tiny_config()
config['num_queries'] = 300
config['backbone'].update(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2, ))
config['neck'].update(in_channels=[128], out_channels=256)
config['positional_encoding']['num_feats'] = 128
for part in ('encoder', 'decoder'):
    config[part]['num_layers'] = 1
    config[part]['layer'].update(layer)
config['decoder']['reference_point']['embed_dims'] = 256
config['decoder']['spatial_query'].update(embed_dims=256, num_heads=8)
config['bbox_head']['embed_dims'] = 256
model = build(config)
images = torch.zeros(1, 3, 800, 1066)
with torch.no_grad():
    model(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with record_attention(model) as recorded:
        model(images)
    parts = recorded.decoder[0]
    kept = sum(part.numel() * part.element_size() for part in (*parts.queries, *parts.keys))
    maps = recorded[0].maps(0)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print('shape', *maps.spatial.shape, 'kept', kept, 'grown', (after - before) * 1024)
"""


@pytest.mark.slow
def test_a_dc5_sized_layer_is_recorded_in_less_than_a_gigabyte(root, source_environment):
    """50 x 67 tokens, 300 queries, 8 heads: all three maps of all queries at once."""
    environment = dict(source_environment, PYTHONPATH=source_environment['PYTHONPATH'] + f':{root / "tests"}')
    command = [sys.executable, '-W', 'ignore', '-c', DC5_SIZED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *_, queries, heads, height, width, _, kept, _, grown = done.stdout.split()
    assert (queries, heads, height, width) == ('300', '8', '50', '67')
    assert int(kept) < 10e6 and int(grown) < 1e9, (kept, grown)

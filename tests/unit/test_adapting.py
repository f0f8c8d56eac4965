"""Names, classes, and what fits: every source tensor is used or ignored by name, every one of ours is filled."""

import json
import os
import re
from argparse import Namespace

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint
from safetensors.torch import save_file
from tiny_masks import with_masks
from tiny_model import batch, build, tiny_config

from mmcondetr.checkpoints import adapting, classes
from mmcondetr.checkpoints.renaming import check_complete, from_ours, recognise, to_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.checkpoints.source import _dc5
from mmcondetr.errors import UserError

HEAD_WEIGHT, HEAD_BIAS = classes.HEAD
OTHERS = {'dab', 'detr', 'masks'}  # parts of the names of families of other models
CONDITIONAL = [name for name in FAMILIES if not OTHERS & set(name.split('-'))]


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(adapting, 'print_log', lambda text, *_: lines.append(text))
    return lines


def model_with(num_classes=80, seed=0):
    config = tiny_config()
    config['bbox_head']['num_classes'] = num_classes
    return build(config, seed)


def tensors_of(model, family):
    return from_ours(model.state_dict(), FAMILIES[family], 'test')


def with_91_rows(model):
    """The model's tensors with a head of one row per COCO id; the unused rows are 7."""
    tensors = model.state_dict()
    for name in classes.HEAD:
        head = tensors[name].new_full((91, *tensors[name].shape[1:]), 7.0)
        head[list(classes.COCO_IDS)] = tensors[name]
        tensors[name] = head
    return tensors


def same(model, tensors):
    return all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items() if name in tensors)


@pytest.mark.parametrize('family', CONDITIONAL)
def test_names_go_both_ways_and_are_recognised(family):
    ours = model_with().state_dict()
    theirs = from_ours(ours, FAMILIES[family], 'test')
    assert recognise(theirs) is FAMILIES[family]
    back, ignored = to_ours(theirs, FAMILIES[family], 'test')
    kept = {name for name in ours if FAMILIES[family].keeps_counters or not name.endswith('num_batches_tracked')}
    assert set(back) == kept and not ignored
    assert all(torch.equal(back[name], ours[name]) for name in kept)


@pytest.mark.parametrize('family', CONDITIONAL)
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_every_family_loads_from_a_file(tmp_path, family, ending, log):
    source = model_with(seed=1)
    rows = 91 if family == 'authors' or family.startswith('huggingface') else 80
    tensors = from_ours(with_91_rows(source) if rows == 91 else source.state_dict(), FAMILIES[family], 'test')
    path = tmp_path / f'some{ending}'
    if ending == '.pth':
        key = dict(authors='model', detrex='model', mmdet='state_dict', mmcondetr='state_dict').get(family)
        torch.save({key: tensors, 'epoch': 50} if key else tensors, path)
    else:
        save_file(tensors, path)
    model = model_with(seed=2)
    checkpoint = load_checkpoint(model, str(path), map_location='cpu')
    assert same(model, source.state_dict())
    assert len(log) == 1 and FAMILIES[family].title in log[0] and str(path) in log[0]
    assert ('91 -> 80 classes by COCO category id' in log[0]) == (rows == 91)
    assert checkpoint['meta']['dataset_meta']['classes'] == classes.COCO_80


def test_detrex_dc5_has_torchvisions_backbone_names():
    tensors = tensors_of(model_with(), 'detrex')
    body = {
        name.replace('backbone.', 'backbone.body.'): value
        for name, value in model_with().state_dict().items()
        if name.startswith('backbone.') and not name.endswith('num_batches_tracked')
    }
    tensors = {**{name: value for name, value in tensors.items() if not name.startswith('backbone.')}, **body}
    assert recognise(tensors).name == 'detrex'
    assert set(body.keys()) == {name for name in tensors if name.startswith('backbone.body.')}
    assert 'backbone.layer4.0.conv2.weight' in to_ours(tensors, FAMILIES['detrex'], 'test')[0]


def test_weights_trained_with_denoising_name_the_reference_point_they_need(tmp_path):
    tensors = {**model_with(seed=1).state_dict(), 'decoder.reference_point.unknown.weight': torch.zeros(1, 32)}
    torch.save(dict(state_dict=tensors), tmp_path / 'dn.pth')
    with pytest.raises(UserError, match='denoising, .*reference_point.type=.mmcondetr.LabelledAnchorBoxes'):
        load_checkpoint(model_with(seed=2), str(tmp_path / 'dn.pth'), strict=True)


def test_what_ddp_and_criteria_add_is_dropped(log):
    tensors = tensors_of(model_with(seed=1), 'detrex')
    tensors['criterion.empty_weight'] = torch.ones(81)
    model = model_with(seed=2)
    model.load_state_dict(tensors)
    assert '1 ignored (criterion.empty_weight)' in log[0]


@pytest.mark.parametrize(
    'change, expected',
    [
        (lambda t: t.update(extra=torch.zeros(1)), ['Left over (1)', '  extra']),
        (lambda t: t.pop('transformer.decoder.norm.bias'), ['Missing (1)', '  decoder.norm.bias']),
        (
            lambda t: t.update({'transformer.decoder.norm.bias': torch.zeros(3)}),
            ['decoder.norm.bias: (3,) in the file'],
        ),
        (
            lambda t: t.update({'query_embed.weight': torch.zeros(9, 32)}),
            ['num_queries=9 and embed_dims=32', '(12, 32)'],
        ),
        (lambda t: t.update({'query_embed.weight': torch.zeros(12, 64)}), ['num_queries=12 and embed_dims=64']),
        (lambda t: t.update({'class_embed.weight': torch.zeros(80, 64)}), ['class_embed.weight: (80, 64) in the file']),
        (lambda t: t.update({'class_embed.bias': torch.zeros(79)}), ['class_embed.bias: (79,) in the file']),
    ],
)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path, change, expected, log):
    tensors = dict(tensors_of(model_with(seed=1), 'authors'))
    change(tensors)
    path = tmp_path / 'some.pth'
    torch.save(dict(model=tensors), path)
    model = model_with(seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_checkpoint(model, str(path), map_location='cpu')
    assert all(text in str(error.value) for text in [*expected, str(path)]), error.value
    assert same(model, before)


def test_a_part_of_joined_rows_that_is_missing_is_named():
    tensors = tensors_of(model_with(), 'huggingface')
    del tensors['model.encoder.layers.1.self_attn.k_proj.bias']
    with pytest.raises(UserError, match=r'model\.encoder\.layers\.1\.self_attn\.k_proj\.bias'):
        to_ours(tensors, FAMILIES['huggingface'], 'test')


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / 'resnet.pth'
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7), 'fc.bias': torch.zeros(1000)}, path)
    with pytest.raises(UserError, match='not a checkpoint of Conditional DETR'):
        load_checkpoint(model_with(), str(path), map_location='cpu')


def test_a_backbones_own_weights_pass_untouched(tmp_path):
    backbone = model_with(seed=1).backbone
    path = tmp_path / 'backbone.pth'
    torch.save(backbone.state_dict(), path)
    other = model_with(seed=2).backbone
    load_checkpoint(other, str(path), map_location='cpu', strict=True)
    assert same(other, backbone.state_dict())


def test_pytorchs_own_loading_is_left_alone():
    model = model_with(seed=1)
    model.load_state_dict(model_with(seed=2).state_dict())
    assert same(model, model_with(seed=2).state_dict())
    incompatible = model.load_state_dict({'decoder.norm.bias': torch.zeros(32)}, strict=False)
    assert incompatible.missing_keys and not incompatible.unexpected_keys
    with pytest.raises(RuntimeError, match='Missing key'):
        model.load_state_dict({'decoder.norm.bias': torch.zeros(32)})


def test_an_incomplete_checkpoint_is_noticed_without_a_model():
    tensors = model_with().state_dict()
    check_complete(tensors, 'test')
    for name in (
        'decoder.layers.1.norm3.weight',
        'backbone.layer2.1.bn1.running_mean',
        'bbox_head.class_embed.bias',
        'decoder.layers.0.cross_attn.query_position_proj.weight',
    ):
        with pytest.raises(UserError, match=name):
            check_complete({key: value for key, value in tensors.items() if key != name}, 'test')


# Classes


def test_coco_tables():
    assert len(classes.COCO_80) == 80 and len(classes.COCO_IDS) == 80 and len(classes.COCO_91) == 91
    assert classes.COCO_91[1] == 'person' and classes.COCO_91[90] == 'toothbrush' and classes.COCO_91[12] is None
    assert classes.used(classes.COCO_91) == classes.COCO_80


@pytest.mark.parametrize(
    'given, count, target, rows, chosen',
    [
        (('a', 'b', 'c'), 3, ('c', 'x', 'a'), 3, [2, None, 0]),
        (('a', 'b', 'c'), 3, None, 3, [0, 1, 2]),
        (('a', 'b', 'c'), 3, None, 2, [None, None]),
        (None, 3, ('a', 'b', 'c'), 3, [0, 1, 2]),
        (None, 4, ('a', 'b', 'c'), 3, [None] * 3),
        ((None, 'a', None, 'b'), 4, ('b', 'a'), 2, [3, 1]),
        (classes.COCO_91, 91, None, 80, list(classes.COCO_IDS)),
        (classes.COCO_91, 91, None, 91, list(range(91))),
        (classes.COCO_91, 91, ('dog', 'unicorn'), 2, [18, None]),
    ],
)
def test_rows_are_chosen_by_name(given, count, target, rows, chosen):
    assert classes.choose_rows(given, count, target, rows) == chosen


def checkpoint_file(tmp_path, model, names=None):
    path = tmp_path / 'mine.pth'
    meta = dict(dataset_meta=dict(classes=names)) if names else {}
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)


def load_for(model, path, dataset_classes=None):
    """As Runner does with MatchClassesHook, which adds the data set's classes between reading and loading."""
    from mmengine.runner.checkpoint import _load_checkpoint_to_model

    checkpoint = _load_checkpoint(path, map_location='cpu')
    if dataset_classes:
        checkpoint['state_dict']._metadata['']['mmcondetr']['dataset_classes'] = dataset_classes
    _load_checkpoint_to_model(model, checkpoint)


def test_another_number_of_classes_loads_the_body_and_says_what_is_new(tmp_path, log):
    source, model = model_with(5, seed=1), model_with(3, seed=2)
    head = {name: model.state_dict()[name].clone() for name in classes.HEAD}
    load_for(model, checkpoint_file(tmp_path, source))
    body = {name: value for name, value in source.state_dict().items() if name not in classes.HEAD}
    assert same(model, body) and same(model, head)
    notice = [line for line in log if 'left as initialised' in line]
    assert len(notice) == 1 and '\n' not in notice[0]
    assert all(name in notice[0] for name in classes.HEAD) and 'all of their rows (0, 1, 2)' in notice[0]


def test_classes_that_are_not_in_the_checkpoint_must_be_trained_before_they_are_tested(tmp_path):
    model, (images, samples) = model_with(3, seed=2), batch()
    load_for(model, checkpoint_file(tmp_path, model_with(5, seed=1)))
    with pytest.raises(UserError, match=r'all of their rows \(0, 1, 2\).*fine-tune before testing.*would be random'):
        model(images, samples, mode='predict')
    for sample in samples:
        sample.gt_instances.labels.clamp_(max=2)
    model(images, samples, mode='loss')
    assert len(model(images, samples, mode='predict')) == 2
    load_for(model, checkpoint_file(tmp_path, model_with(5, seed=1)))
    load_for(model, checkpoint_file(tmp_path, model_with(3, seed=1)))  # a checkpoint that fits
    assert len(model(images, samples, mode='predict')) == 2


def test_classes_that_share_a_name_keep_their_rows(tmp_path, log):
    source, model = model_with(5, seed=1), model_with(3, seed=2)
    before = model.state_dict()[HEAD_WEIGHT].clone()
    load_for(model, checkpoint_file(tmp_path, source, ('cat', 'dog', 'cow', 'bus', 'car')), ('car', 'tree', 'dog'))
    weight, theirs = model.state_dict()[HEAD_WEIGHT], source.state_dict()[HEAD_WEIGHT]
    assert torch.equal(weight[0], theirs[4]) and torch.equal(weight[2], theirs[1]) and torch.equal(weight[1], before[1])
    assert torch.equal(model.state_dict()[HEAD_BIAS][[0, 2]], source.state_dict()[HEAD_BIAS][[4, 1]])
    assert '1 of their 3 rows (tree)' in log[0] and '5 -> 3 classes by name' in log[1]


SHAPES = ('circle', 'square', 'star')
STUFF = ('sky', 'sand')


def model_with_masks(num_classes, panoptic=None, seed=0):
    config = with_masks(tiny_config(), panoptic=panoptic)
    config['bbox_head']['num_classes'] = num_classes
    return build(config, seed)


def panoptic_file(tmp_path):
    """Of a model of three kinds of things and two of stuff, as a run of ours writes it."""
    source = model_with_masks(5, dict(num_classes=5, num_things=3), seed=1)
    meta = dict(dataset_meta=dict(classes=SHAPES + STUFF, thing_classes=SHAPES, stuff_classes=STUFF))
    torch.save(dict(state_dict=source.state_dict(), meta=meta), tmp_path / 'panoptic.pth')
    return source, str(tmp_path / 'panoptic.pth')


def test_a_panoptic_checkpoint_in_a_model_of_instances_says_so(tmp_path, log):
    source, path = panoptic_file(tmp_path)
    model = model_with_masks(3, seed=2)
    load_for(model, path)  # as Detector does: the model does not know its classes
    with pytest.raises(UserError) as raised:
        model(*batch(), mode='predict')
    message = (
        'panoptic.pth: bbox_head.class_embed.weight .* the checkpoint is of a panoptic model .3 kinds of things, 2 '
    )
    assert re.search(f'{message}of stuff., and this model has no model.mask_head.panoptic: test it', str(raised.value))
    assert 'no class of that name' not in str(raised.value)
    load_for(model, path, SHAPES)  # as in a run: its things by name
    assert torch.equal(model.state_dict()[HEAD_WEIGHT], source.state_dict()[HEAD_WEIGHT][:3])
    assert '5 -> 3 classes by name' in log[-1]
    model(*batch(), mode='predict')


@pytest.mark.parametrize('names', [SHAPES + STUFF, None])
def test_a_checkpoint_of_instances_in_a_panoptic_model_says_so(tmp_path, names):
    model = model_with_masks(5, dict(num_classes=5, num_things=3), seed=2)
    load_for(model, checkpoint_file(tmp_path, model_with_masks(3, seed=1), SHAPES), names)
    with pytest.raises(
        UserError,
        match=r'rows \(.*the checkpoint is of a model of 3 classes without stuff, and this model is panoptic \(3 '
        r'kinds of things, 2 of stuff\): test it with the config that it was trained with, or train this model from it',
    ):
        model(*batch(), mode='predict')


def test_cocos_panoptic_classes_are_known_by_their_names(tmp_path):
    path = checkpoint_file(tmp_path, model_with_masks(133, dict(num_classes=133, num_things=80), seed=1))
    model = model_with_masks(4, seed=2)
    load_for(model, path)
    with pytest.raises(UserError, match=r'of a panoptic model \(80 kinds of things, 53 of stuff\)'):
        model(*batch(), mode='predict')


def test_the_same_classes_in_another_order_change_places(tmp_path, log):
    source, model = model_with(3, seed=1), model_with(3, seed=2)
    load_for(model, checkpoint_file(tmp_path, source, ('a', 'b', 'c')), ('c', 'a', 'b'))
    assert torch.equal(model.state_dict()[HEAD_WEIGHT], source.state_dict()[HEAD_WEIGHT][[2, 0, 1]])
    assert not [line for line in log if 'initialised' in line]


def test_the_authors_coco_rows_serve_other_data_sets(tmp_path, log):
    source, model = model_with(80, seed=1), model_with(2, seed=2)
    path = tmp_path / 'some.pth'
    torch.save(dict(model=from_ours(with_91_rows(source), FAMILIES['authors'], 'test')), path)
    load_for(model, str(path), ('person', 'unicorn'))
    assert torch.equal(model.state_dict()[HEAD_WEIGHT][0], source.state_dict()[HEAD_WEIGHT][0])
    assert '(unicorn)' in log[0]


def test_hugging_face_names_come_from_config_json(tmp_path, log):
    source, model = model_with(3, seed=1), model_with(2, seed=2)
    save_file(tensors_of(source, 'huggingface'), tmp_path / 'model.safetensors')
    config = dict(model_type='conditional_detr', id2label={'0': 'N/A', '1': 'cat', '2': 'dog'}, dilation=False)
    (tmp_path / 'config.json').write_text(json.dumps(config))
    checkpoint = _load_checkpoint(str(tmp_path), map_location='cpu')
    assert checkpoint['meta']['dataset_meta']['classes'] == ('cat', 'dog')
    load_for(model, str(tmp_path), ('dog', 'cat'))
    assert torch.equal(model.state_dict()[HEAD_WEIGHT], source.state_dict()[HEAD_WEIGHT][[2, 1]])


@pytest.mark.parametrize('labels', [3, 'cat', ['cat'], {'0': 1}, {'0': None}, {'0': ['cat']}])
def test_a_config_json_with_other_types_is_named_with_its_field(tmp_path, labels):
    save_file(tensors_of(model_with(3, seed=1), 'huggingface'), tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='conditional_detr', id2label=labels)))
    with pytest.raises(UserError, match=r"config.json': id2label must name each class, .* and is"):
        _load_checkpoint(str(tmp_path), map_location='cpu')


@pytest.mark.parametrize(
    'content', ['', '[]', 'null', '3', '{"model_type": 3}', '{"model_type": ["conditional_detr"]}']
)
def test_a_config_json_of_something_else_says_nothing(tmp_path, content):
    save_file(tensors_of(model_with(3, seed=1), 'huggingface'), tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(content)
    assert 'state_dict' in _load_checkpoint(str(tmp_path), map_location='cpu')


def test_a_folder_without_weights_and_one_with_parts_say_so(tmp_path):
    with pytest.raises(UserError, match='holds neither of'):
        _load_checkpoint(str(tmp_path))
    (tmp_path / 'model.safetensors.index.json').write_text('{}')
    with pytest.raises(UserError, match='several files'):
        _load_checkpoint(str(tmp_path))


# DC5


def dilated(kind):
    """A tiny model with the backbone of DC5 (ours), of DC5 as mmdet dilates it, or without dilation."""
    config = tiny_config()
    config['bbox_head']['num_classes'] = 80
    if kind == 'mmdet':
        config['backbone'].update(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    model = build(config, 0)
    if kind == 'dc5':  # ResNetDC5 has no narrow version: set what it sets
        for block in model.backbone.layer4:
            block.conv2.stride = block.conv2.dilation = block.conv2.padding = (1, 1)
        model.backbone.layer4[0].downsample[0].stride = (1, 1)
        for block in list(model.backbone.layer4)[1:]:
            block.conv2.dilation = block.conv2.padding = (2, 2)
    return model


@pytest.mark.parametrize(
    'name, dilation, kind, warns',
    [
        ('ConditionalDETR_r50dc5_epoch50.pth', None, 'dc5', None),
        ('ConditionalDETR_r50dc5_epoch50.pth', None, 'plain', 'model that is DC5, this model is not DC5'),
        ('ConditionalDETR_r50_epoch50.pth', None, 'dc5', 'model that is not DC5, this model is DC5'),
        ('ConditionalDETR_r50_epoch50.pth', None, 'plain', None),
        ('checkpoint.pth', True, 'plain', 'model that is DC5, this model is not DC5'),
        ('checkpoint.pth', False, 'dc5', 'model that is not DC5, this model is DC5'),
        ('checkpoint.pth', True, 'dc5', None),
        ('checkpoint.pth', None, 'plain', None),
        ('checkpoint.pth', None, 'mmdet', 'first block of its last stage'),
        ('ConditionalDETR_r50dc5_epoch50.pth', True, 'mmdet', 'first block of its last stage'),
    ],
)
def test_a_backbone_that_the_weights_were_not_trained_in_gets_a_warning(tmp_path, name, dilation, kind, warns, log):
    path = tmp_path / name
    checkpoint = dict(model=tensors_of(model_with(), 'authors'))
    if dilation is not None:
        checkpoint['args'] = Namespace(dilation=dilation, backbone='resnet50')
    torch.save(checkpoint, path)
    load_checkpoint(dilated(kind), str(path), map_location='cpu')
    warnings = [line for line in log if 'recognised as' not in line]
    assert len(warnings) == (warns is not None)
    assert warns is None or warns in warnings[0]


@pytest.mark.parametrize('name', ['r50-dc5_8xb1-50e', 'r101-dc5_8xb1-108e'])
def test_our_configs_have_the_authors_dilation(root, name):
    from mmengine.config import Config

    from mmcondetr.registry import MODELS

    config = Config.fromfile(os.path.join(root, f'configs/conditional_detr/conditional-detr_{name}_coco.py')).model
    config.backbone.init_cfg = None
    backbone = MODELS.build(config.backbone)
    assert [block.conv2.dilation[0] for block in backbone.layer4] == [1, 2, 2]
    assert backbone.layer4[0].conv2.stride == (1, 1)


@pytest.mark.parametrize(
    'where, dc5',
    [
        ('/data/dc5-trials/checkpoint.pth', None),
        ('/models/conditional-detr-resnet-50-dc5/model.safetensors', True),
        ('/models/conditional-detr-resnet-50/pytorch_model.bin', False),
        ('https://host/microsoft/conditional-detr-resnet-50-dc5/resolve/main/model.safetensors', True),
        ('https://host/v1.0/ConditionalDETR_r101_epoch50.pth', False),
        ('https://host/v1.0/ConditionalDETR_r101dc5_epoch50.pth', True),
        ('conditional-detr_r50_8xb2-50e_coco_20221121_180202-c83a1dc0.pth', False),
        ('my_model.pth', None),
    ],
)
def test_what_a_name_says_about_dilation(where, dc5):
    assert _dc5({}, {}, {}, where) is dc5

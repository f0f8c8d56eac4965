"""The configs: names, size of the leaves, inheritance from mmdet's DETR, the training recipe of the paper."""

import re

DROPPED_AT = {50: 40, 75: 60, 108: 80}
NAME = re.compile(
    r'(?P<system>[a-z-]+)_(?P<backbone>r\d+(-dc5)?|swin-t)(_(?P<variant>[a-z0-9-]+))?'
    r'_(?P<gpus>\d+)xb(?P<batch>\d+)-(?P<epochs>\d+)e_(?P<dataset>[a-z0-9-]+)'
)
IMAGENET = {50: 'resnet50-0676ba61.pth', 101: 'resnet101-63fe2227.pth'}


def parts(path):
    match = NAME.fullmatch(path.stem)
    assert match, f'{path.name}: not system_backbone[-dc5][_variant]_GPUSxbN-EPOCHSe_dataset.py'
    return match


def dictionaries(value):
    """Every dict inside a config."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from dictionaries(item)


def test_there_are_the_twelve_models(root):
    names = {path.stem for path in (root / 'configs/conditional_detr').glob('*.py')}
    assert names == {
        f'conditional-detr_{backbone}_8xb{batch}-{epochs}e_coco'
        for backbone, batch in (('r50', 2), ('r101', 2), ('r50-dc5', 1), ('r101-dc5', 1))
        for epochs in DROPPED_AT
    }


def test_leaf_is_its_difference_only(any_leaf):
    lines = [line for line in any_leaf.read_text().splitlines() if not line.startswith('#')]
    assert len(lines) <= 15
    assert '_base_' in any_leaf.read_text()


def test_name_follows_the_grammar_and_says_what_is_inside(any_leaf, load_config):
    match, config = parts(any_leaf), load_config(any_leaf)
    assert config.train_dataloader.batch_size == int(match['batch'])
    assert config.train_cfg.max_epochs == int(match['epochs'])
    if match['backbone'] == 'swin-t':
        assert config.model.backbone.type == 'mmdet.SwinTransformer'
    else:
        assert config.model.backbone.depth == int(match['backbone'].split('-')[0][1:])
    assert (config.model.backbone.type == 'mmcondetr.ResNetDC5') == match['backbone'].endswith('-dc5')
    assert config.auto_scale_lr.base_batch_size == int(match['gpus']) * int(match['batch'])


def test_package_is_imported_and_torchvision_not_asked_for(any_leaf, load_config):
    config = load_config(any_leaf)
    assert config.custom_imports == dict(imports=['mmcondetr'], allow_failed_imports=False)
    assert 'torchvision://' not in repr(config.to_dict())


def test_every_type_names_its_scope_in_the_model(leaf, load_config):
    types = [part['type'] for part in dictionaries(load_config(leaf).model) if 'type' in part]
    bare = {name for name in types if '.' not in name} - {'BN', 'Pretrained'}
    assert len(types) > 10 and not bare


def test_runtime_of_coco_configs_is_ours(table1_leaf, load_config, root):
    ours = load_config(root / 'configs/_base_/default_runtime.py')

    def plain(hooks):
        return {name: {key: value for key, value in hook.items() if key != '_scope_'} for name, hook in hooks.items()}

    assert plain(load_config(table1_leaf).default_hooks) == plain(ours.default_hooks)


def test_built_on_mmdets_detr(table1_leaf):
    path = table1_leaf
    while '::' not in str(path):
        base = re.search(r"^_base_ = \[?'(.*?)'", path.read_text(), re.MULTILINE).group(1)
        path = base if '::' in base else (path.parent / base).resolve()
    assert path == 'mmdet::detr/detr_r50_8xb2-150e_coco.py'


def test_training_recipe_is_the_papers(table1_leaf, load_config):
    match, config = parts(table1_leaf), load_config(table1_leaf)
    epochs, dc5 = int(match['epochs']), match['backbone'].endswith('-dc5')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 1e-4)
    assert config.optim_wrapper.paramwise_cfg.custom_keys == dict(backbone=dict(lr_mult=0.1, decay_mult=1.0))
    assert config.optim_wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert [dict(step) for step in config.param_scheduler] == [
        dict(type='MultiStepLR', begin=0, end=epochs, by_epoch=True, milestones=[DROPPED_AT[epochs]], gamma=0.1)
    ]
    assert config.max_epochs == config.train_cfg.max_epochs == epochs
    assert config.train_dataloader.batch_size == (1 if dc5 else 2)
    assert config.auto_scale_lr.base_batch_size == (8 if dc5 else 16)
    assert config.val_dataloader.batch_size == config.test_dataloader.batch_size == 1


def test_model_settings_are_the_papers(table1_leaf, load_config):
    model = load_config(table1_leaf).model
    assert model.num_queries == 300 and model.test_cfg.max_per_img == 100
    assert model.encoder.layer.dropout == model.decoder.layer.dropout == 0.1  # mmdet's decoder: 0.0 after attention
    assert model.encoder.num_layers == model.decoder.num_layers == 6
    assert model.encoder.layer.feedforward_channels == model.decoder.layer.feedforward_channels == 2048
    head = model.bbox_head
    assert dict(head.loss_cls) == dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
    assert (head.loss_bbox.loss_weight, head.loss_iou.loss_weight) == (5.0, 2.0)
    assert dict(model.train_cfg.assigner) == dict(
        type='mmcondetr.HungarianMatcher', class_cost=2.0, bbox_cost=5.0, giou_cost=2.0
    )


def test_backbone_starts_from_imagenet_frozen_stem_and_batch_norm(table1_leaf, load_config):
    backbone = load_config(table1_leaf).model.backbone
    assert backbone.init_cfg.type == 'Pretrained'
    assert backbone.init_cfg.checkpoint == f'https://download.pytorch.org/models/{IMAGENET[backbone.depth]}'
    assert backbone.frozen_stages == 1 and backbone.norm_eval and not backbone.norm_cfg.requires_grad


def test_backbone_is_frozen_only_where_it_starts_from_weights(leaf, load_config):
    config = load_config(leaf)
    backbone = config.model.backbone
    started = (backbone.get('init_cfg') or {}).get('checkpoint', '').startswith('https:')  # from ImageNet
    assert backbone.frozen_stages == (1 if started else -1)
    assert (backbone.norm_eval, backbone.norm_cfg.requires_grad) == (started, not started)
    assert started or 'from scratch' in config.text.lower()


def test_imagenet_weights_can_be_a_local_path(table1_leaf, load_config):
    config = load_config(table1_leaf)
    config.merge_from_dict({'model.backbone.init_cfg.checkpoint': '/weights/resnet.pth'})
    assert config.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='/weights/resnet.pth')


def test_r50_from_scratch_is_the_papers_model_with_a_trainable_backbone(load_config, root):
    models = root / 'configs/_base_/models'
    scratch = load_config(models / 'conditional-detr_r50_from-scratch.py').model.to_dict()
    paper = load_config(models / 'conditional-detr_r50.py').model.to_dict()
    del paper['_scope_']
    for field in ('init_cfg', 'frozen_stages', 'norm_eval', 'norm_cfg', 'base_channels', 'strides', 'dilations'):
        scratch['backbone'].pop(field)
        paper['backbone'].pop(field, None)
    assert scratch == paper


def test_boxes_are_loaded_before_training_images_are_resized(any_leaf, load_config):
    """A resize before LoadAnnotations does not change the boxes: right for testing, wrong for training."""
    pipeline = load_config(any_leaf).train_dataloader.dataset.pipeline
    types = [transform.type.split('.')[-1] for transform in pipeline]
    assert types[0] in ('LoadImage', 'LoadImageFromFile') and types[1] in ('LoadAnnotations', 'LoadPanoptic'), types

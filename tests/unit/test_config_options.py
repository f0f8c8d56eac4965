"""--cfg-options: what nothing reads stops, max_epochs=N changes the run's length; wrong values name their path."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmcondetr.cli import main
from mmcondetr.compat.config_scope import config_root
from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.config_options import apply_options
from mmcondetr.errors import UserError

ROOT = config_root()
SHAPES = ROOT / 'shapes' / 'conditional-detr_r18_small_1xb16-24e_shapes.py'
COCO = ROOT / 'conditional_detr' / 'conditional-detr_r50_8xb2-50e_coco.py'


@pytest.fixture
def config() -> Config:
    return Config.fromfile(SHAPES)


@pytest.mark.parametrize(
    'key, message',
    [
        (
            'train_dataloder.batch_size',
            "no 'train_dataloder', .* would read it. Did you mean train_dataloader",
        ),
        ('train_dataloader.batchsize', r"train_dataloader has no 'batchsize'. Did you mean batch_size"),
        ('batch_size', 'Did you mean .*train_dataloader.batch_size'),
        (
            'data_root',
            "'data_root' is a variable .* is used at .*train_dataloader.dataset.data_root",
        ),
        ('prob', r'Did you mean train_dataloader\.dataset\.pipeline\.2\.prob\?'),
        ('model.decoder.layers', "model.decoder has no 'layers'. Did you mean layer"),
        ('train_dataloader.batch_size.x', "train_dataloader.batch_size is 16, which has nothing named 'x'"),
        ('train_dataloader.dataset.pipeline.9.type', "is a list of 4 entries; '9' must be an index"),
    ],
)
def test_a_key_that_nothing_reads_stops(config, key, message):
    with pytest.raises(UserError, match=rf'--cfg-options {key}: .*{message}'):
        apply_options(config, {key: 4})


def test_a_variable_that_is_used_in_pipelines_names_its_places():
    steps = [dict(type='mmcondetr.LoadImage'), dict(type='mmdet.Resize', scale=(64, 48))]
    datasets = {f'{part}_dataloader': dict(dataset=dict(pipeline=steps)) for part in ('train', 'val')}
    with pytest.raises(
        UserError, match="'scale' is a variable .* is used at train_dataloader.dataset.pipeline.1.scale, v"
    ):
        apply_options(Config(dict(scale=(64, 48), **datasets)), dict(scale=(32, 24)))


@pytest.mark.parametrize(
    'command, option',
    [
        ('train', 'model.decoder.nonsense=1'),
        ('config', 'optim_wrapper.optimizer.learning_rate=1'),
        ('config', 'model.decoder.nonsense=1'),
        ('config', 'train_dataloader.nonsense=1'),
        ('config', 'model.num_queries=0'),
    ],
)
def test_config_refuses_the_options_that_training_refuses(command, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, str(SHAPES), '--cfg-options', option]) == 2
    assert f"error: Config '{SHAPES}': {option.partition('=')[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('train_dataloader.batch_size', 'four', "must be a number .the config has 16., not 'four'"),
        ('model.backbone', 'swin', "must be a dict .the config has a dict., not 'swin'"),
        ('train_dataloader.sampler.shuffle', 'yes', "must be true or false .the config has True., not 'yes'"),
        ('train_dataloader.dataset.ann_file', 3, 'must be a text'),
    ],
)
def test_a_value_of_another_kind_names_its_path(config, key, value, message):
    with pytest.raises(UserError, match=f'--cfg-options {key}: {message}'):
        apply_options(config, {key: value})


def test_options_that_mean_something_are_taken(config):
    apply_options(
        config,
        {
            'train_dataloader.batch_size': 4,
            'train_dataloader.dataset.pipeline.2.prob': 0.0,
            'model.backbone.init_cfg': None,
            'train_dataloader.dataset.metainfo.classes': ('a', 'b'),
            'default_hooks.ema': dict(type='EMAHook'),
            'work_dir': 'elsewhere',
            'load_from': 'some.pth',
            'optim_wrapper.optimizer.lr': 1,
        },
    )
    assert config.train_dataloader.batch_size == 4 and config.train_dataloader.dataset.pipeline[2].prob == 0
    assert config.load_from == 'some.pth' and config.train_dataloader.dataset.metainfo.classes == ('a', 'b')


def test_max_epochs_changes_the_loop_and_stretches_the_schedule():
    config = Config.fromfile(COCO)
    assert (config.train_cfg.max_epochs, config.param_scheduler[0].milestones) == (50, [40])
    apply_options(config, dict(max_epochs=10))
    assert config.train_cfg.max_epochs == 10
    assert (config.param_scheduler[0].milestones, config.param_scheduler[0].end) == ([8], 10)


def test_a_warm_up_by_iterations_keeps_its_length():
    warm_up = dict(type='LinearLR', begin=0, end=500, by_epoch=False)
    cosine = dict(type='CosineAnnealingLR', begin=1, end=20, T_max=19, by_epoch=True)
    config = Config(dict(train_cfg=dict(max_epochs=20, val_interval=5), param_scheduler=[warm_up, cosine]))
    apply_options(config, dict(max_epochs=40))
    first, second = config.param_scheduler
    assert (first.end, second.begin, second.end, second.T_max) == (500, 2, 40, 38)
    apply_options(config, dict(max_epochs=2))
    assert config.train_cfg.val_interval == 2, 'else the run would never be validated'


@pytest.mark.parametrize('length', [0, -1, 2.5, 'many', True])
def test_a_length_must_be_a_positive_whole_number(config, length):
    with pytest.raises(UserError, match='max_epochs: must be a whole number, 1 or more'):
        apply_options(config, dict(max_epochs=length))


def test_max_iters_of_a_run_that_counts_epochs(config):
    with pytest.raises(UserError, match='no train_cfg.max_iters. This config counts in max_epochs='):
        apply_options(config, dict(max_iters=100))


@pytest.mark.parametrize('path', sorted(ROOT.rglob('*.py')), ids=lambda path: path.stem)
def test_our_configs_pass(path):
    if '_base_' not in path.parts:
        check_config(Config.fromfile(path))


@pytest.mark.parametrize(
    'key, value, message',
    [
        (
            'model.training_queries',
            dict(type='mmcondetr.QueryGroup'),
            r"model.training_queries.type: 'mmcondetr.QueryGroup' is not registered. "
            r'Did you mean mmcondetr.QueryGroups\b',
        ),
        ('model.decoder.type', 'mmcondetr.Xyz', r"model.decoder.type: 'mmcondetr.Xyz' is not registered\.$"),
        ('custom_hooks', [dict(type='mmcondetr.OptimizHook')], r'custom_hooks.0.type: .*Did you mean mmcondetr.Optim'),
        ('train_cfg.type', 'EpochBasedTrainLop', r"train_cfg.type: 'EpochBasedTrainLop' .* EpochBasedTrainLoop\b"),
        ('val_cfg.type', 'ValLop', r'val_cfg.type: .*Did you mean ValLoop\b'),
        ('optim_wrapper.optimizer.type', 'AdamWW', r'optim_wrapper.optimizer.type: .*Did you mean AdamW\b'),
        ('param_scheduler', [dict(type='MultiStepLRR')], r'param_scheduler.0.type: .*Did you mean MultiStepLR\b'),
        ('custom_hooks', [dict(type='CheckClassesHook')], r'custom_hooks.0.type: .*mmcondetr.CheckClassesHook'),
        ('custom_hooks', [dict(type='mmengine.EMAHok')], r'custom_hooks.0.type: .*mmengine.EMAHook'),
        ('visualizer.vis_backends', [dict(type='Xyz')], r"visualizer.vis_backends.0.type: 'Xyz' is not registered\.$"),
        ('train_dataloader.sampler.type', 'DefaultSamplr', 'train_dataloader.sampler.type: .*DefaultSampler'),
        ('train_dataloader.dataset.pipeline', [dict(type='Resiz')], r'dataset.pipeline.0.type: .* Resize\b'),
        ('val_evaluator.type', 'mmdet.CocoMetrik', r'val_evaluator.type: .*Did you mean mmdet.CocoMetric\b'),
        ('model.training_queries', dict(type='QueryGroups'), 'queries.type: .*Did you mean mmcondetr.QueryGroups'),
        ('model.bbox_head.type', 'ConditionalDETRHead', "head of mmdet's, .*'mmcondetr.ConditionalDETRHead' is ours"),
        ('model.num_queries', 0, 'model.num_queries: must be a whole number, 1 or more, not 0'),
        ('model.num_queries', 'many', 'model.num_queries: must be'),
        ('model.test_cfg.max_per_img', 0.5, 'model.test_cfg.max_per_img: must be a whole number, 1 or more, not 0.5'),
        ('model.bbox_head.num_classes', -1, 'model.bbox_head.num_classes: must be'),
        ('model.decoder.layer.num_heads', 7, 'model.decoder.layer: embed_dims=128 cannot be divided among num_heads=7'),
        ('model.decoder.layer.dropout', 1.5, 'model.decoder.layer.dropout: must be a number from 0 to 1'),
        (
            'model.decoder.num_layer',
            2,
            "mmcondetr.ConditionalDecoder has no 'num_layer'. Did you mean num_layers",
        ),
        ('model.decoder.num_layers', 0, 'model.decoder.num_layers: must be a whole number, 1 or more, not 0'),
        ('model.neck.out_channels', 64, r'must be one number, but is model.neck.out_channels=64, model.encoder.*=128'),
        ('model.bbox_head.embed_dims', 7, r'must be one number, but is .*model.bbox_head.embed_dims=7'),
        ('model.positional_encoding.num_feats', 32, r'must be one number, but is .*2 \* .*num_feats=64'),
        ('model.positional_encoding.num_feats', 0, 'model.positional_encoding.num_feats: must be'),
        ('model.positional_encoding.temperature', None, 'temperature: must be a number above 0, not None'),
        ('default_hooks.checkpoint.max_keep_ckpts', None, 'checkpoint.max_keep_ckpts: must be int, not None'),
        ('default_hooks.checkpoint.max_keep_ckpts', float('nan'), 'checkpoint.max_keep_ckpts: must be int, not nan'),
        ('default_hooks.checkpoint.interval', None, 'checkpoint.interval: must be int, not None'),
        ('train_dataloader.batch_size', 0, 'train_dataloader.batch_size: must be'),
        ('train_dataloader.num_workers', -1, 'train_dataloader.num_workers: must be a whole number, 0 or more'),
        ('train_dataloader.num_workers', 0, 'train_dataloader.persistent_workers: must be False where'),
        (
            'train_dataloader.suffle',
            True,
            "a data loader has no 'suffle'. Did you mean shuffle",
        ),
        ('train_dataloader.sampler.suffle', True, r'train_dataloader.sampler.suffle: .*Did you mean shuffle'),
        ('train_dataloader.dataset.annfile', 'x', r'train_dataloader.dataset.annfile: .*Did you mean ann_file'),
        ('train_dataloader.dataset.pipeline.2.prop', 1, r'pipeline.2.prop: mmdet.RandomFlip has no'),
        ('val_evaluator.metrics', 'bbox', r'val_evaluator.metrics: .*Did you mean metric'),
        ('default_hooks.checkpoint.intervall', 1, r'default_hooks.checkpoint.intervall: .*Did you mean interval'),
        ('train_cfg.max_epochs', 0, 'train_cfg.max_epochs: must be'),
        ('train_cfg.val_interval', 0.5, 'train_cfg.val_interval: must be'),
    ],
)
def test_a_wrong_setting_names_the_config_s_path(config, key, value, message):
    """As it stands in a config: --cfg-options has checks of its own before this one."""
    config.merge_from_dict({key: value})
    with pytest.raises(UserError, match=message) as raised:
        check_config(config)
    assert str(raised.value).startswith(f"Config '{config.filename}': ") and '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'key, value',
    [
        ('custom_hooks', [dict(type='theirs.Hook')]),
        ('custom_hooks', [dict(type='ProfilerHook', on_trace_ready=dict(type='log_trace'))]),
        ('custom_hooks', [dict(type='PipelineSwitchHook', switch_pipeline=[dict(type='mmdet.Resize')])]),
        ('train_dataloader.collate_fn', dict(type='pseudo_collate')),
        ('train_dataloader.dataset.pipeline', [dict(type='Albu', transforms=[dict(type='ShiftScaleRotate')])]),
        ('val_evaluator', dict(type='Evaluator', metrics=[dict(type='mmcondetr.CocoMetric')])),
        ('optim_wrapper.optimizer.type', 'torch.optim.AdamW'),
    ],
)
def test_names_that_something_else_than_our_registries_knows(config, key, value):
    config.merge_from_dict({key: value})
    check_config(config)


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('num_groups', 0, 'must be a whole number, 1 or more, not 0'),
        ('num_groups', -3, 'must be a whole number, 1 or more, not -3'),
        ('num_groups', '3', "must be a whole number, 1 or more, not '3'"),
        ('num_groups', 3.0, 'must be a whole number, 1 or more, not 3.0'),
        ('matching.num_groups', 0, 'must be a whole number, 1 or more, not 0'),
        ('box_noise', 1.5, 'must be a number from 0 to 1, not 1.5'),
        ('label_noise', '0.2', "must be a number from 0 to 1, not '0.2'"),
        ('num_group', 3, "mmcondetr.DenoisingPoints has no 'num_group'. Did you mean num_groups?"),
    ],
)
def test_settings_of_training_queries(config, field, value, message):
    matching = dict(type='mmcondetr.QueryGroups', num_groups=2)
    config.model.training_queries = dict(type='mmcondetr.DenoisingPoints', matching=matching)
    config.merge_from_dict({f'model.training_queries.{field}': value})
    with pytest.raises(UserError) as raised:
        check_config(config)
    assert str(raised.value) == f"Config '{SHAPES}': model.training_queries.{field}: {message}" + (
        '' if message.endswith('?') else '.'
    )


@pytest.mark.parametrize(
    'name', ['shapes/detr_r18_small_1xb16-24e_shapes.py', 'baselines/deformable-detr_r50_16xb2-50e_coco.py']
)
def test_training_queries_of_a_detector_without_them(name):
    config = Config.fromfile(ROOT / name)
    config.model.training_queries = dict(type='mmcondetr.QueryGroups', num_groups=3)
    with pytest.raises(UserError) as raised:
        check_config(config)
    kind = config.model.type.removeprefix('mmdet.')
    assert str(raised.value) == (
        f"Config '{ROOT / name}': model.training_queries: {kind} has no such setting; Conditional DETR and DAB-DETR "
        "(model.type='mmcondetr.ConditionalDETR') have it."
    )

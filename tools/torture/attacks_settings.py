"""Settings: one number of the config at a time is replaced."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tools.torture.attempts import Attempt, Silent
from tools.torture.ground import Ground, command, read_checkpoint

VALUES = ('0', '-1', '1', '3', '7', '0.5', 'None', 'text', '[]', '[1,2]', 'True', '1e30', 'nan')
FIELDS = (
    'model.num_queries',
    'model.type',
    'model.backbone.depth',
    'model.backbone.num_stages',
    'model.backbone.out_indices',
    'model.neck.out_channels',
    'model.neck.in_channels',
    'model.positional_encoding.num_feats',
    'model.positional_encoding.temperature',
    'model.encoder.num_layers',
    'model.encoder.layer.embed_dims',
    'model.encoder.layer.num_heads',
    'model.encoder.layer.feedforward_channels',
    'model.encoder.layer.dropout',
    'model.decoder.num_layers',
    'model.decoder.layer.embed_dims',
    'model.decoder.layer.num_heads',
    'model.decoder.layer.dropout',
    'model.decoder.reference_point.embed_dims',
    'model.decoder.spatial_query.num_heads',
    'model.bbox_head.num_classes',
    'model.bbox_head.embed_dims',
    'model.bbox_head.loss_cls.gamma',
    'model.bbox_head.loss_cls.alpha',
    'model.bbox_head.loss_bbox.loss_weight',
    'model.train_cfg.assigner.class_cost',
    'model.train_cfg.assigner.giou_cost',
    'model.test_cfg.max_per_img',
    'train_dataloader.batch_size',
    'train_dataloader.num_workers',
    'train_dataloader.dataset.ann_file',
    'train_dataloader.dataset.data_prefix.img',
    'optim_wrapper.optimizer.lr',
    'optim_wrapper.optimizer.type',
    'optim_wrapper.clip_grad.max_norm',
    'param_scheduler.0.gamma',
    'param_scheduler.0.milestones',
    'train_cfg.max_epochs',
    'train_cfg.val_interval',
    'train_cfg.type',
    'default_hooks.checkpoint.interval',
    'default_hooks.checkpoint.max_keep_ckpts',
    'default_hooks.checkpoint.save_best',
    'randomness.seed',
    'val_evaluator.ann_file',
    'val_evaluator.metric',
)
NOTHING_LEARNED = (('model.num_queries', '0'), ('train_dataloader.drop_last', 'True'))


def _train(ground: Ground, work: Path, *options: str) -> int:
    code = command('train', ground.config, '--work-dir', work, '--cfg-options', 'train_cfg.max_epochs=1', *options)
    if code == 0:
        for path in work.glob('epoch_*.pth'):
            if read_checkpoint(path)['meta']['iter'] == 0:
                raise Silent('a checkpoint after no step')
    return code


def settings(ground: Ground, choice: random.Random) -> Iterator[Attempt]:
    """Settings on the command line; accepted ones must train."""

    def attempt(*options: str, must_fail: bool = False) -> Attempt:
        work = ground.new('settings')
        return Attempt(' '.join(options), lambda: _train(ground, work, *options), must_fail, seconds=90, megabytes=6000)

    yield attempt('model.num_queries=8')
    yield attempt('model.num_queries=0', must_fail=True)
    yield attempt('train_dataloader.drop_last=True', 'train_dataloader.batch_size=100', must_fail=True)
    yield attempt('model.encoder.layer.num_heads=5', must_fail=True)
    yield attempt('model.no_such_field=1', must_fail=True)
    yield attempt('nonsense', must_fail=True)
    while True:
        field, value = choice.choice(FIELDS), choice.choice(VALUES)
        yield attempt(f'{field}={value}')

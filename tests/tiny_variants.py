"""Every ablation and every DAB-DETR of configs/, at the size of the tiny model: a new config is tested at once."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from tiny_model import CONFIG

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = sorted([*ROOT.glob('configs/ablations/*_coco.py'), *ROOT.glob('configs/dab_detr/*_r50_*coco.py')])
SIZES = dict(embed_dims=32, num_heads=4, feedforward_channels=64, num_classes=5, num_queries=12)


def shrink(config):
    """Set every size below a config to the tiny model's."""
    if isinstance(config, dict):
        return {key: SIZES.get(key, shrink(value)) for key, value in config.items()}
    return config


def tiny_variant(path: Path) -> dict:
    """The model of a config with the tiny model's sizes, backbone and neck; no dropout, so that it can overfit."""
    config = shrink(Config.fromfile(path).model.to_dict())
    config.update({name: CONFIG[name] for name in ('backbone', 'neck', 'data_preprocessor')})
    config['positional_encoding']['num_feats'] = 16
    for part, layers in (('encoder', 2), ('decoder', 3)):
        config[part]['num_layers'] = layers
        config[part]['layer']['dropout'] = 0.0
    loss = config['bbox_head']['loss_cls']
    if 'class_weight' in loss:
        loss['class_weight'] = [*loss['class_weight'][:5], loss['class_weight'][-1]]
    config['test_cfg'] = dict(max_per_img=20)
    return config

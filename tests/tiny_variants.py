"""Every ablation, every DAB-DETR and what is added in training, at the size of the tiny model."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from tiny_model import tiny_config

from tools.convergence.runs import shrink_model

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = sorted(
    [
        *ROOT.glob('configs/ablations/*_coco.py'),
        *ROOT.glob('configs/dab_detr/*_r50_*coco.py'),
        ROOT / 'configs/dn_dab_detr/dn-dab-detr_r50_8xb2-50e_coco.py',
        ROOT / 'configs/dn_conditional_detr/dn-conditional-detr_r50_8xb2-50e_coco.py',
        ROOT / 'configs/group_detr/conditional-detr_r50_11-groups_8xb2-50e_coco.py',
    ]
)


def tiny_variant(path: Path) -> dict:
    """The model of a config with the tiny model's sizes, backbone and neck; no dropout, so that it can overfit."""
    config = shrink_model(Config.fromfile(path).model.to_dict(), tiny_config())
    for part in ('encoder', 'decoder'):
        config[part]['layer']['dropout'] = 0.0
    return config

"""Small-scale convergence: every system trained with the same data, size, schedule and seeds.

A run is one system with one seed, trained by tools/train.py in a process of its own. Its result is one JSON file; a run
that has one is not trained again, and one that was interrupted is resumed from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from mmcondetr.compat.config_scope import config_root
from mmcondetr.engine.config import find_config
from mmcondetr.errors import UserError
from mmcondetr.visualization.curves import METRIC, read_curve
from tools.convergence import results

BASE = 'conditional-detr_r18_small_1xb16-24e_shapes'
_SMALL = '{}_r18_small_1xb16-24e_shapes'
_ABLATION = '{}_r50_{}_8xb2-50e_coco'
MAIN_SYSTEMS = ('detr', 'conditional-detr', 'dab-detr', 'deformable-detr')

#: System -> the config of its model. The ablations' COCO models are shrunk to the sizes of the small one.
SYSTEMS: dict[str, str] = {
    **{name: _SMALL.format(name) for name in MAIN_SYSTEMS},
    **{
        name: _ABLATION.format('conditional-detr', name)
        for name in (
            'csq-c',
            'csq-t',
            'csq-p',
            'csq-i',
            'single-transform',
            'block-transform',
            'full-transform',
            'zero-reference',
            'learned-reference',
        )
    },
    **{name: _ABLATION.format('detr', name) for name in ('additive', 'or', 'fl', 'or-fl', 'first-positions')},
    'dn-dab-detr': 'dn-dab-detr_r50_8xb2-50e_coco',
}

START = config_root() / 'shapes/conditional-detr_r18_small_shapes-start.safetensors'

_DENOISING = dict(type='mmcondetr.DenoisingPoints', num_groups=5, label_noise=0.2, box_noise=0.4)
_GROUPS = {f'{count}-groups': dict(type='mmcondetr.QueryGroups', num_groups=count) for count in (2, 4, 6, 11)}
#: Parts that exist in training only, by the suffix of a system's name: ``conditional-detr_6-groups``.
TRAINING: dict[str, dict] = {
    **_GROUPS,
    'denoising': _DENOISING,
    '6-groups-denoising': dict(_DENOISING, matching=_GROUPS['6-groups']),
    'mixed-groups': dict(type='mmcondetr.MixedQueryGroups', num_groups=6),
    'one-to-many': dict(type='mmcondetr.OneToMany', num_copies=6),
    'frozen-queries': dict(type='mmcondetr.FrozenQueries', checkpoint=str(START)),
}
SYSTEMS.update({f'conditional-detr_{part}': SYSTEMS['conditional-detr'] for part in TRAINING})
SYSTEMS.update({f'dab-detr_{part}': SYSTEMS['dab-detr'] for part in _GROUPS})


def system_config(
    system: str, base: Config, epochs: int, seed: int, backbone: str | None = None, stop_after: int | None = None
) -> Config:
    """The config of one run: the base's data and optimiser, the system's model, at most the backbone pretrained.

    Args:
        system: a name of :data:`SYSTEMS`.
        base: config of a small Conditional DETR; gives data, optimiser and every size.
        epochs: the budget; the learning rate drops to a tenth after five sixths of it.
        seed: of initialisation, order and augmentation.
        backbone: checkpoint of one of our detectors, whose backbone every system starts from; None: from scratch.
        stop_after: epochs that are trained of the budget, whose schedule stays as it is; None: all.

    Raises:
        UserError: there is no such system, or the base is another detector's.
    """
    if system not in SYSTEMS:
        raise UserError(f"System '{system}' is not one of {', '.join(SYSTEMS)}.")
    if base.get('model', {}).get('decoder', {}).get('type') != 'mmcondetr.ConditionalDecoder':
        raise UserError(f"--base: config '{base.filename}' is not a Conditional DETR, which defines all sizes.")
    config = Config(base._cfg_dict.to_dict())
    model = Config.fromfile(find_config(SYSTEMS[system])).model.to_dict()
    plain, _, part = system.partition('_')
    config.model = model if plain in MAIN_SYSTEMS else shrink_model(model, config.model)
    if part:
        config.model.training_queries = TRAINING[part]
    _set_classes(config.model['bbox_head'], base.model.bbox_head.num_classes)
    config.load_from, config.resume = None, False
    config.model.backbone.init_cfg = backbone and dict(type='Pretrained', checkpoint=backbone, prefix='backbone.')
    config.randomness = dict(seed=seed)
    config.train_cfg.update(max_epochs=min(stop_after or epochs, epochs), val_interval=1)
    config.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
        dict(type='MultiStepLR', begin=0, end=epochs, by_epoch=True, milestones=[round(epochs * 5 / 6)], gamma=0.1),
    ]
    return config


def shrink_model(model: dict, small: Mapping[str, Any]) -> dict:
    """A COCO model of any system with the sizes, classes, backbone and neck of a small Conditional DETR."""
    layer = small['decoder']['layer']
    sizes = {name: layer[name] for name in ('embed_dims', 'num_heads', 'feedforward_channels', 'dropout')}
    sizes['num_queries'] = small['num_queries']

    def set_sizes(part: Any) -> Any:
        return (
            {name: sizes.get(name, set_sizes(value)) for name, value in part.items()}
            if isinstance(part, dict)
            else part
        )

    model = set_sizes(model)
    for part in ('encoder', 'decoder'):
        model[part]['num_layers'] = small[part]['num_layers']
    model['positional_encoding']['num_feats'] = small['positional_encoding']['num_feats']
    for name in ('backbone', 'neck', 'data_preprocessor', 'test_cfg'):
        model[name] = small[name]
    _set_classes(model['bbox_head'], small['bbox_head']['num_classes'])
    return model


def _set_classes(head: dict, num_classes: int) -> None:
    head['num_classes'] = num_classes
    weights = head['loss_cls'].get('class_weight')
    if isinstance(weights, (list, tuple)):
        head['loss_cls']['class_weight'] = [*weights[:num_classes], weights[-1]]


def check_backbone(path: str, base: Config) -> str:
    """The checkpoint's absolute path, after checking that it contains every weight of the small model's backbone.

    Raises:
        UserError: it is missing or unreadable, or a weight of the backbone is missing or has another shape.
    """
    if not Path(path).is_file():
        raise UserError(f"--backbone: checkpoint '{path}' does not exist.")
    tensors = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    tensors = tensors.get('state_dict', tensors)
    with DefaultScope.overwrite_default_scope('mmdet'):
        expected = MODELS.build(base.model.backbone).state_dict()
    for name, value in expected.items():
        given = tensors.get(f'backbone.{name}')
        if given is None or given.shape != value.shape:
            found = 'is missing' if given is None else f'has shape {tuple(given.shape)}'
            raise UserError(
                f"--backbone: checkpoint '{path}': 'backbone.{name}' {found}, and the backbone of "
                f"'{base.filename}' has one of shape {tuple(value.shape)}."
            )
    return os.path.abspath(path)


def run_once(
    system: str,
    base: Config,
    epochs: int,
    seed: int,
    work_dir: Path,
    train: Path,
    backbone: str | None = None,
    stop_after: int | None = None,
) -> dict:
    """Train one run, or read the result of a finished one. One that was stopped earlier than now is continued.

    Args:
        system, base, epochs, seed, backbone, stop_after: as for :func:`system_config`.
        work_dir: folder of the results and the runs' folders.
        train: tools/train.py.

    Returns:
        system, seed, epochs, base (its config's :func:`fingerprint`), backbone (its file's name and the start of its
        SHA-256), and the curve: ``steps`` (epochs; fewer than the budget in a run that was stopped) and ``ap``.

    Raises:
        UserError: the training failed, or an earlier run has another budget, base or start.
    """
    result = results.path(work_dir, system, seed)
    folder = result.with_suffix('')
    asked = dict(system=system, seed=seed, **comparison(base, epochs, backbone))
    for earlier in (result, folder / 'asked.json'):
        if earlier.exists():
            results.check_same(earlier, asked)
    if result.exists() and len(results.read(result)['steps']) >= min(stop_after or epochs, epochs):
        return results.read(result)
    config = system_config(system, base, epochs, seed, backbone, stop_after)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'asked.json').write_text(json.dumps(asked))
    path = folder / 'run.py'
    config.dump(path)
    command = [sys.executable, str(train), str(path), '--work-dir', str(folder), '--resume']
    with open(folder / 'output.txt', 'a') as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        raise UserError(
            f'{system}, seed {seed}: training ended with exit code {code}; see {folder / "output.txt"}. '
            'The same command resumes from its last checkpoint.'
        )
    curve = read_curve(folder, METRIC)
    found = dict(asked, steps=list(curve.steps), ap=list(curve.values))
    results.write(result, found)
    return found


def comparison(base: Config, epochs: int, backbone: str | None) -> dict:
    """What all runs of a comparison have in common; arguments as for :func:`run_once`."""
    return dict(
        epochs=epochs,
        base=fingerprint(base),
        backbone=backbone and f'{Path(backbone).name} {_hash(Path(backbone).read_bytes())}',
    )


def fingerprint(base: Config) -> str:
    """A config's name and the start of a SHA-256 of its settings: of the data folder its name, not its place.

    Left out are the weights that it starts from, which no run of a comparison loads, and whose path is absolute.
    """
    settings = json.dumps(base._cfg_dict.to_dict() | dict(load_from=None), sort_keys=True, default=str)
    if root := base.get('data_root'):
        settings = settings.replace(root, f'{Path(root).name}/')
    return f'{Path(base.filename).stem} {_hash(settings.encode())}'


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]

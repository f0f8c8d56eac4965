"""Checks a config before anything is built from it: unknown names and impossible values, each with its path."""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet import registry as mmdet_registry
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmcondetr.engine.config_options import close_to
from mmcondetr.engine.config_types import check_registered, class_of, parameters_of
from mmcondetr.errors import UserError

#: Keys that mmengine's Runner takes from a loader's dict besides torch's own arguments.
_LOADER_KEYS = ('dataset', 'sampler', 'batch_sampler', 'worker_init_fn', 'collate_fn', 'num_batch_per_epoch')
_COUNTS = (
    'batch_size',
    'num_queries',
    'num_classes',
    'num_groups',
    'num_copies',
    'num_heads',
    'embed_dims',
    'num_feats',
    'feedforward_channels',
    'max_per_img',
)
_SHARES = ('dropout', 'attn_drop', 'proj_drop', 'ffn_drop', 'label_noise', 'box_noise')
#: In our models these must be equal, the width of tokens and queries; the last is half of it.
_WIDTHS = (
    'neck.out_channels',
    'encoder.layer.embed_dims',
    'decoder.layer.embed_dims',
    'decoder.reference_point.embed_dims',
    'decoder.spatial_query.embed_dims',
    'bbox_head.embed_dims',
)
_HALF = 'positional_encoding.num_feats'
#: Dicts that a function of mmcv or mmengine builds, which takes more arguments than the type itself.
_OTHERS = ('norm_cfg', 'act_cfg', 'conv_cfg', 'upsample_cfg', 'init_cfg', 'dcn', 'plugins')
#: Removed from a dict by the function that builds from it.
_TAKEN_OUT = ('type', '_scope_', 'constructor', 'paramwise_cfg', 'bg_cls_weight')
#: Top-level keys whose typed dicts are built by the registry of that name.
_REGISTRIES = dict(
    model='MODELS',
    data_preprocessor='MODELS',
    optim_wrapper='OPTIM_WRAPPERS',
    param_scheduler='PARAM_SCHEDULERS',
    train_dataloader='DATASETS',
    val_dataloader='DATASETS',
    test_dataloader='DATASETS',
    val_evaluator='METRICS',
    test_evaluator='METRICS',
    default_hooks='HOOKS',
    custom_hooks='HOOKS',
    train_cfg='LOOPS',
    val_cfg='LOOPS',
    test_cfg='LOOPS',
    visualizer='VISUALIZERS',
    log_processor='LOG_PROCESSORS',
)
_BELOW = dict(  # a key further down -> the registry of what is below it
    pipeline='TRANSFORMS',
    transforms='TRANSFORMS',
    sampler='DATA_SAMPLERS',
    batch_sampler='DATA_SAMPLERS',
    optimizer='OPTIMIZERS',
    train_cfg='TASK_UTILS',
    assigner='TASK_UTILS',
    vis_backends='VISBACKENDS',
)
#: Paths of the parts that a run builds by name from a registry. Below them are dicts with a type that is none of these,
#: such as albumentations' transforms.
_BUILT = re.compile(
    r'model|optim_wrapper(\.optimizer)?|param_scheduler(\.\d+)?|(default|custom)_hooks\.\w+|(train|val|test)_cfg'
    r'|(train|val|test)_dataloader\.((batch_)?sampler|dataset(\.dataset|\.datasets\.\d+)*(\.pipeline\.\d+)?)'
    r'|(val|test)_evaluator(\.metrics)?(\.\d+)?|visualizer(\.vis_backends\.\d+)?|log_processor'
)


def check_config(config: Config) -> None:
    """Check the keys of every dict that has a ``type`` against its class, and the values of counts.

    For classes that are not ours, or that pass arguments on, only names that look misspelt are refused.

    Raises:
        UserError: one line that names the config's file, and the path in it.
    """
    with file_named(config):
        _check_parts(config)


@contextmanager
def file_named(config: Config) -> Iterator[None]:
    """Add the config's file to an error that names a setting in it."""
    try:
        yield
    except UserError as error:
        if not config.filename:
            raise
        raise UserError(f"Config '{config.filename}': {error}") from error


def _check_parts(config: Config) -> None:
    plain = config.get('default_scope') in (None, 'mmengine', 'mmdet')  # in which names without a scope are looked up
    for top, registry in _REGISTRIES.items():
        for path, value, kind in _dicts(config.get(top), top, registry):
            _check_values(path, value)
            check_registered(f'{path}.type', value.get('type'), kind, plain and _BUILT.fullmatch(path) is not None)
            cls = class_of(value, kind)
            if cls is not None:
                _check_names(path, value, cls)
                _check_types(path, value, cls)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = config.get(name)
        if isinstance(loader, dict):
            known = {*inspect.signature(DataLoader.__init__).parameters, *_LOADER_KEYS}
            _refuse_unknown(name, [key for key in loader if key not in known], known, 'a data loader')
            _check_loader(name, loader)
    _check_training_queries(config.get('model') or {})
    if str((config.get('model') or {}).get('type')).startswith('mmcondetr.'):
        _check_widths(config.model)
        if plain:
            _check_head(config.model)
    loop = config.get('train_cfg')
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        if isinstance(loop, dict) and key in loop:
            _check_count(f'train_cfg.{key}', loop[key])


def _dicts(value: Any, path: str, registry: str) -> Iterator[tuple[str, dict, str]]:
    """Every dict below a value, with its path and the registry that would build it."""
    if isinstance(value, dict):
        yield path, value, registry
        for key, inner in value.items():
            if key in _OTHERS:
                continue
            yield from _dicts(inner, f'{path}.{key}', _BELOW.get(key, registry))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _dicts(inner, f'{path}.{index}', registry)


def _check_names(path: str, value: dict, cls: type) -> None:
    known, complete = parameters_of(cls)
    unknown = [key for key in value if key not in known and key not in _TAKEN_OUT]
    if not (complete and cls.__module__.startswith(('mmcondetr.', 'torch.optim.'))):
        # Its builder may remove more keys, or it may pass them on: refuse only what looks misspelt.
        unknown = [key for key in unknown if difflib.get_close_matches(key, known, cutoff=0.75)]
    _refuse_unknown(path, unknown, known, value['type'] if isinstance(value['type'], str) else cls.__name__)


def _refuse_unknown(path: str, unknown: list[str], known: set[str], what: str) -> None:
    if unknown:
        raise UserError(f"{path}.{unknown[0]}: {what} has no '{unknown[0]}'.{close_to(unknown[0], known - {'self'})}")


def _check_types(path: str, value: dict, cls: type) -> None:
    """For our own classes only, whose annotations are correct."""
    if not cls.__module__.startswith('mmcondetr.'):
        return
    try:
        hints = typing.get_type_hints(cls.__init__)
    except Exception:  # a name imported for type checkers only
        return
    for key, given in value.items():
        hint = hints.get(key)
        several = typing.get_origin(hint) in (typing.Union, types.UnionType)
        allowed = set(typing.get_args(hint)) if several else {hint}
        if not allowed <= {int, float, bool, str, type(None)} or type(given) in allowed:
            continue
        if float in allowed and type(given) is int:
            continue
        names = ' or '.join(sorted('None' if kind is type(None) else kind.__name__ for kind in allowed))
        raise UserError(f'{path}.{key}: must be {names}, not {given!r}.')


def _check_values(path: str, value: dict) -> None:
    for key in _COUNTS:
        if key in value and value[key] is not None and not path.endswith('auto_scale_lr'):
            several = isinstance(value[key], (list, tuple))  # one per stage
            for count in value[key] if several else [value[key]]:
                _check_count(f'{path}.{key}', count)
    for key in _SHARES:
        share = value.get(key, 0)
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 1:
            raise UserError(f'{path}.{key}: must be a number from 0 to 1, not {share!r}.')
    width, heads = value.get('embed_dims'), value.get('num_heads')
    if isinstance(width, int) and isinstance(heads, int) and width % heads:
        raise UserError(f'{path}: embed_dims={width} cannot be divided among num_heads={heads} heads.')


def _check_training_queries(model: dict) -> None:
    """Raise for a detector that has none, such as mmdet's DETR."""
    cls = class_of(model, 'MODELS')
    if 'training_queries' not in model or cls is None:
        return
    known, complete = parameters_of(cls)
    if complete and 'training_queries' not in known:
        raise UserError(
            f'model.training_queries: {cls.__name__} has no such setting; Conditional DETR and DAB-DETR '
            "(model.type='mmcondetr.ConditionalDETR') have it."
        )


def _check_head(model: dict) -> None:
    """Raise for a head of mmdet's in one of our models: it takes other inputs, and the first step would fail."""
    name = (model.get('bbox_head') or {}).get('type')
    if not isinstance(name, str) or name.rpartition('.')[0] not in ('', 'mmdet'):
        return
    cls = mmdet_registry.MODELS.get(name)
    if inspect.isclass(cls) and cls.__module__.startswith('mmdet.'):
        raise UserError(
            f"model.bbox_head.type: '{name}' is a head of mmdet's, which takes other inputs than {model['type']} gives "
            "it; 'mmcondetr.ConditionalDETRHead' is ours."
        )


def _check_widths(model: dict) -> None:
    """Raise unless the parts of one of our models fit together: the first step would fail with a shape error."""
    given = {f'model.{path}': _at(model, path) for path in _WIDTHS}
    half = _at(model, _HALF)
    if isinstance(half, int):
        given[f'2 * model.{_HALF}'] = 2 * half
    given = {path: width for path, width in given.items() if isinstance(width, int)}
    if len(set(given.values())) > 1:
        widths = ', '.join(f'{path}={width}' for path, width in given.items())
        raise UserError(f'model: the width of tokens and queries must be one number, but is {widths}.')
    layers = _at(model, 'decoder.num_layers')
    if layers is not None:
        _check_count('model.decoder.num_layers', layers)
    temperature = _at(model, 'positional_encoding.temperature')
    number = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if 'temperature' in (model.get('positional_encoding') or {}) and not (number and 0 < temperature < float('inf')):
        raise UserError(f'model.positional_encoding.temperature: must be a number above 0, not {temperature!r}.')


def _at(value: Any, path: str) -> Any:
    for key in path.split('.'):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _check_count(path: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f'{path}: must be a whole number, 1 or more, not {value!r}.')


def _check_loader(name: str, loader: dict) -> None:
    workers = loader.get('num_workers', 0)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise UserError(f'{name}.num_workers: must be a whole number, 0 or more, not {workers!r}.')
    if not workers and loader.get('persistent_workers'):
        raise UserError(f'{name}.persistent_workers: must be False where {name}.num_workers is 0.')

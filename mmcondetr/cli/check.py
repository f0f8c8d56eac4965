"""Check everything before training: environment, config, every annotation and every image.

    mmcondetr check my_config.py
    mmcondetr check my_config.py --out checked --samples 12

Prints a line for each error and warning and a table of counts and sizes, finds images that are duplicated or in both
training and validation, and writes OUT/data.html with samples before and after augmentation. Exit code 1 if there is an
error.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.progress import track

from mmcondetr.analysis.augmentation import draw_samples
from mmcondetr.analysis.data_check import Part, find_copies, image_entries, look_at_annotations, look_at_images
from mmcondetr.analysis.environment_check import look_at_environment
from mmcondetr.analysis.html_page import listing, pictures, table, write_page
from mmcondetr.cli.common import OptionsAction
from mmcondetr.datasets.coco_panoptic import CocoPanopticDataset, load_segments
from mmcondetr.engine.check_config import check_config
from mmcondetr.engine.check_masks import check_measured_masks, check_things, check_trained_masks
from mmcondetr.engine.config import check_start, load_config
from mmcondetr.errors import UserError
from mmcondetr.terminal import say

USER_ERROR = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='path of a config, or the name of one in the package')
    parser.add_argument('--out', default='data_check', help='the folder to write data.html to (default: data_check)')
    parser.add_argument('--samples', type=int, default=6, help='training images to show (default: 6, 0 for none)')
    parser.add_argument('--no-images', action='store_true', help='check annotations only, not the image files')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, help='as of mmcondetr train')


def run(args: argparse.Namespace) -> None:
    rows, errors, warned = look_at_environment()
    for name, version in rows:
        say(f'{name}: {version}')
    args.launcher, args.work_dir = 'none', None
    config = load_config(args)
    refused: list[str] = []
    for check in (check_config, check_measured_masks, check_trained_masks):
        try:
            check(config)
        except UserError as error:
            refused.append(str(error))
    errors += refused + _look_at_model(config, explained=bool(refused))
    datasets = _build_lazily(config, errors)
    parts = [
        _look_at(name, dataset, args.no_images, _has_masks(config, name, dataset)) for name, dataset in datasets.items()
    ]
    for part in parts:
        errors += part.errors or _look_at_things(config, part.name, datasets[part.name])
        warned += part.warnings
    warned += _look_at_queries(config, parts)
    copies, maybe = find_copies(parts)
    errors, warned = errors + copies, warned + maybe
    head, lines = _statistics_table(parts)
    table = ('  '.join(f'{str(cell):>{18 if i else 24}}' for i, cell in enumerate(row)) for row in [head, *lines])
    say('\n'.join(table))
    shown: list = []
    broken = any(part.errors for part in parts if part.name == 'train')
    drawable = 'train' in datasets and not isinstance(datasets['train'], CocoPanopticDataset)  # samples show boxes
    if args.samples and not broken and drawable:
        try:
            shown = draw_samples(_build(config.train_dataloader.dataset), args.samples)
        except UserError as error:
            errors.append(f'train: {error}')
    page = Path(args.out) / 'data.html'
    write_page(page, f'Data of {args.config}', _sections(errors, warned, (head, lines), parts, shown))
    say(f'wrote {page}')
    for line in warned:
        say(f'warning: {line}')
    for line in errors:
        say(f'error: {line}', file=sys.stderr)
    if errors:
        raise UserError(
            f'{len(errors)} error{"s" * (len(errors) > 1)}, above, in the config {args.config} or its data.'
        )
    say('no errors')


def _look_at_model(config: Config, explained: bool) -> list[str]:
    """Build the model, without downloading weights, and check that the checkpoint to start from exists.

    If it cannot be built and what is wrong was ``explained`` already, it is not said again.
    """
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    if 'model' not in config:
        return ['the config has no model']
    init_default_scope(config.get('default_scope', 'mmdet'))
    settings, errors = deepcopy(config.model), []
    if 'backbone' in settings:
        settings.backbone.init_cfg = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            model = MODELS.build(settings)
        outputs = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        for name, dataset in _build_lazily(config, []).items():
            classes = dataset.metainfo.get('classes', ())
            if outputs is not None and len(classes) != outputs:
                errors.append(f'model.bbox_head.num_classes={outputs}, but {name} has {len(classes)} classes')
    except UserError as error:
        errors.append(str(error))
    except Exception as error:  # anything raised because of a wrong setting is an error in the config
        if not explained:
            errors.append(f'the model cannot be built: {type(error).__name__}: {" ".join(str(error).split())}')
    try:
        check_start(config)
    except UserError as error:
        errors.append(str(error))
    return errors


def _build(settings: Any, **more: Any) -> Any:
    from mmdet.registry import DATASETS

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return DATASETS.build(dict(settings, **more))


def _build_lazily(config: Config, errors: list[str]) -> dict[str, Any]:
    """The data sets, without reading annotations (except generated ones); 'test' only if it differs from 'val'."""
    found: dict[str, Any] = {}
    for name in ('train', 'val', 'test'):
        settings = (config.get(f'{name}_dataloader') or {}).get('dataset')
        if settings is None:
            continue
        try:
            dataset = _build(settings, lazy_init='ShapesDataset' not in str(settings.get('type')))
        except Exception as error:
            errors.append(f'{name}_dataloader.dataset cannot be built: {" ".join(str(error).split())}')
            continue
        if not hasattr(dataset, 'ann_file'):
            errors.append(f'{name}_dataloader.dataset: this command cannot check a {type(dataset).__name__}')
        elif name != 'test' or 'val' not in found or dataset.ann_file != found['val'].ann_file:
            found[name] = dataset
    return found


def _has_masks(config: Config, name: str, dataset: Any) -> bool:
    """Whether masks are loaded from the data of a part, or measured on it."""
    evaluators = config.get(f'{name}_evaluator') or ()
    metrics = [one.get('metric') for one in ([evaluators] if isinstance(evaluators, dict) else evaluators)]
    return getattr(dataset, 'with_masks', False) or any('segm' in (metric or ()) for metric in metrics)


def _look_at(name: str, dataset: Any, no_images: bool, masks: bool) -> Part:
    if isinstance(dataset, CocoPanopticDataset):
        return _look_at_panoptic(name, dataset, no_images)
    folder = dataset.data_prefix.get('img', '')
    part = look_at_annotations(name, dataset.ann_file, dataset.metainfo.get('classes', ()), folder, masks)
    if no_images or part.file is None:
        return part
    entries = image_entries(part, folder)
    for _ in track(look_at_images(part, entries, folder), f'{name}: images', total=len(entries), transient=True):
        pass
    return part


def _look_at_panoptic(name: str, dataset: CocoPanopticDataset, no_images: bool) -> Part:
    """Check the JSON, and the ids and sizes of every panoptic PNG; its boxes are not counted."""
    part = Part(name, dataset.ann_file)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            dataset.full_init()
    except UserError as error:
        part.errors.append(f'{name}: {error}')
        return part
    part.warnings += [f'{name}: {warning.message}' for warning in caught if warning.category is UserWarning]
    if no_images:
        return part
    items = [dataset.get_data_info(index) for index in range(len(dataset))]
    folder = dataset.data_prefix.get('img', '')
    for _ in track(look_at_images(part, items, folder), f'{name}: images', total=len(items), transient=True):
        pass
    for item in track(items, f'{name}: panoptic images', transient=True):
        try:
            load_segments(item)
        except UserError as error:
            part.errors.append(f'{name}: {error}')
    return part


def _look_at_things(config: Config, name: str, dataset: Any) -> list[str]:
    """Compare the model's number of things with that of a part without errors."""
    merging = ((config.get('model') or {}).get('mask_head') or {}).get('panoptic') or {}
    try:
        if isinstance(merging.get('num_things'), int):
            check_things(merging['num_things'], dataset, f'{name}_dataloader')
    except UserError as error:
        return [str(error)]
    return []


def _look_at_queries(config: Config, parts: Sequence[Part]) -> list[str]:
    """A model finds at most as many objects as it has queries, and keeps max_per_img of them."""
    model = config.get('model') or {}
    limits = {
        'num_queries': model.get('num_queries'),
        'test_cfg.max_per_img': (model.get('test_cfg') or {}).get('max_per_img'),
    }
    warned = []
    for part in parts:
        most = part.statistics['boxes_per_image']['max'] if part.statistics else 0
        low = [f'model.{name}={limit}' for name, limit in limits.items() if isinstance(limit, int) and limit < most]
        if low:
            warned.append(f'{part.name}: an image has {most} objects, more than can be found with {" and ".join(low)}')
    return warned


def _statistics_table(parts: Sequence[Part]) -> tuple[list[str], list[list[Any]]]:
    """Counts and sizes, a column per part; then boxes by class."""
    head = ['', *(part.name for part in parts)]
    rows: list[list[Any]] = []
    known = [part.statistics for part in parts]

    def add(label: str, value) -> None:
        rows.append([label, *(value(one) if one else '-' for one in known)])

    add('images', lambda s: s['images'])
    add('without boxes', lambda s: s['images_without_boxes'])
    add('width (pixels)', lambda s: '{min:.0f} to {max:.0f}'.format(**s['image_width']))
    add('height (pixels)', lambda s: '{min:.0f} to {max:.0f}'.format(**s['image_height']))
    add('boxes', lambda s: s['annotations'])
    add('boxes an image', lambda s: '{mean:.1f}, most {max}'.format(**s['boxes_per_image']))
    add('small (< 32 x 32)', lambda s: s['boxes_by_area']['small'])
    add('medium', lambda s: s['boxes_by_area']['medium'])
    add('large (>= 96 x 96)', lambda s: s['boxes_by_area']['large'])
    for name in dict.fromkeys(name for one in known if one for name in one['boxes_per_class']):
        add(f'boxes of {name}', lambda s, name=name: s['boxes_per_class'].get(name, 0))
    return head, rows


def _sections(errors: list[str], warned: list[str], counts: tuple, parts: Sequence[Part], shown: list) -> list:
    sections = [
        (f'{len(errors)} errors', listing(errors, 'error') if errors else '<p>None.</p>'),
        (f'{len(warned)} warnings', listing(warned) if warned else '<p>None.</p>'),
        ('Counts and sizes', table(*counts)),
        ('Files', listing([f'{part.name}: {part.ann_file}' for part in parts])),
    ]
    if shown:
        sections.append(('Training samples, original and as the model gets them', pictures(shown)))
    return sections

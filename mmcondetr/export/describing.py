"""Derives the metadata of an exported file from the detector's config and checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmcondetr import __version__
from mmcondetr.errors import UserError
from mmcondetr.export.graph import check_supported
from mmcondetr.runtime.metadata import INTERPOLATIONS, Metadata, Resize
from mmcondetr.writing import file_sha256

#: Transforms of a test pipeline that do not change pixels; names without a scope.
_SILENT = ('LoadAnnotations', 'LoadPanoptic', 'PackDetInputs')
_LOADING = ('LoadImage', 'LoadImageFromFile')


def describe(detector: nn.Module, config: Config, config_name: str, checkpoint: str) -> Metadata:
    """The metadata of a file that this detector is exported to.

    Args:
        detector: built by ``load_detector``.
        config: its config, whose test pipeline defines how images are resized.
        config_name: the config's name.
        checkpoint: the checkpoint's path.

    Raises:
        UserError: the detector is from another package, the runner cannot reproduce the test pipeline, or the class
            names do not fit the head.
    """
    check_supported(detector)
    preprocessor = detector.data_preprocessor
    classes = tuple(detector.dataset_meta['classes'])
    palette = detector.dataset_meta.get('palette') or ()
    head = detector.bbox_head
    if len(classes) != head.num_classes:
        raise UserError(
            f"Config '{config_name}': model.bbox_head.num_classes is {head.num_classes}, and the checkpoint or "
            f'the data set names {len(classes)} classes.'
        )
    if not isinstance(palette, Sequence) or isinstance(palette, str) or len(palette) != len(classes):
        palette = ()  # mmdet also allows 'random' and the like
    normalises = preprocessor._enable_normalize
    mean = preprocessor.mean.flatten().tolist() if normalises else [0.0]
    std = preprocessor.std.flatten().tolist() if normalises else [1.0]
    mean, std = (values * 3 if len(values) == 1 else values for values in (mean, std))
    if not preprocessor._channel_conversion:  # given for BGR
        mean, std = mean[::-1], std[::-1]
    return Metadata(
        package=__version__,
        config=config_name,
        checkpoint=Path(checkpoint).name,
        checkpoint_sha256=_sha256(checkpoint),
        precision='float32',
        classes=classes,
        palette=tuple(tuple(int(value) for value in colour) for colour in palette),
        resize=resize_rule(config.test_dataloader.dataset.pipeline, config_name),
        pad_size_divisor=preprocessor.pad_size_divisor,
        mean=tuple(mean),
        std=tuple(std),
        max_detections=head.max_per_img,
        masks=detector.mask_head is not None,
    )


def resize_rule(pipeline: Sequence[Mapping], config_name: str) -> Resize | None:
    """How a test pipeline resizes an image; None if it does not.

    Raises:
        UserError: the runner cannot reproduce it pixel for pixel.
    """
    rule = None
    for transform in pipeline:
        kind = transform['type'] if isinstance(transform['type'], str) else transform['type'].__name__
        kind = kind.rpartition('.')[2]
        options = {key: value for key, value in transform.items() if key not in ('type', 'backend_args')}
        where = f"Config '{config_name}': test_dataloader.dataset.pipeline: {kind}"
        if kind in _LOADING:
            given = dict(to_float32=False, color_type='color', imdecode_backend='cv2') | options
            if (given['to_float32'], given['color_type'], given['imdecode_backend']) != (False, 'color', 'cv2'):
                raise UserError(f'{where} must read 8-bit colour images with cv2 to be exported, but has {options}.')
        elif kind == 'Resize':
            if rule is not None:
                raise UserError(f'{where} occurs twice; an exported file resizes once.')
            rule = _resize(options, where)
        elif kind not in _SILENT:
            raise UserError(
                f'{where} is not one of the transforms that can be exported: {_LOADING + _SILENT + ("Resize",)}.'
            )
    return rule


def _resize(options: Mapping, where: str) -> Resize:
    scale = options.get('scale')
    interpolation = options.get('interpolation', 'bilinear')
    if scale is None or options.get('backend', 'cv2') != 'cv2' or interpolation not in INTERPOLATIONS:
        raise UserError(f'{where} must have a scale and use cv2 to be exported, but has {dict(options)}.')
    scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
    return Resize(scale=scale, keep_ratio=options.get('keep_ratio', False), interpolation=interpolation)


def _sha256(path: str) -> str:
    """The SHA-256 of the file; '' for a URL or a folder."""
    return file_sha256(path) if Path(path).is_file() else ''

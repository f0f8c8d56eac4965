"""The metadata of an exported file: class names, how images are resized, and its origin.

It is one JSON object under the key :data:`KEY` in an ONNX file's metadata or an OpenVINO model's runtime info.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from math import isfinite

from mmcondetr.errors import UserError

KEY = 'mmcondetr'
FORMAT = 1  # of the metadata and of the graph's inputs and outputs
MOST_PIXELS_A_SIDE = 8192
"""Largest side that an image may be resized to, and largest divisor of a batch's sides: bounds the memory."""
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'area', 'lanczos')


@dataclass(frozen=True)
class Resize:
    """How an image is resized before it enters the graph: mmdet's ``Resize`` with OpenCV.

    Attributes:
        scale: with ``keep_ratio`` the longest and the shortest side that the image is fitted into, in any order;
            without, its width and height, pixels.
        keep_ratio: keep the ratio of width to height.
        interpolation: one of :data:`INTERPOLATIONS`.
    """

    scale: tuple[int, int]
    keep_ratio: bool
    interpolation: str


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported file.

    Attributes:
        package: the version of this package that wrote it.
        config: name of the config.
        checkpoint: name of the checkpoint's file.
        checkpoint_sha256: of that file.
        precision: 'float32', or 'int8 backbone'.
        classes: names, in the order of the labels.
        palette: a colour (red, green, blue) of each class, in 0 ... 255; may be empty.
        resize: how an image is resized first; None if it is not.
        pad_size_divisor: height and width of a batch are padded to multiples of it.
        mean: subtracted from red, green, blue, in the graph.
        std: by which they are then divided, in the graph.
        max_detections: K, detections per image.
        masks: whether the graph outputs masks.
        format: :data:`FORMAT`.
    """

    package: str
    config: str
    checkpoint: str
    checkpoint_sha256: str
    precision: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    resize: Resize | None
    pad_size_divisor: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    max_detections: int
    masks: bool = False
    format: int = FORMAT

    def to_json(self) -> str:
        """The object as text."""
        return json.dumps(asdict(self), ensure_ascii=False)


def parse(text: str, file: str) -> Metadata:
    """The metadata of ``file`` from its text.

    Raises:
        UserError: it was not written by :meth:`Metadata.to_json`; the message names the field.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{file}': its metadata '{KEY}' is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise UserError(f"'{file}': its metadata '{KEY}' is a {type(values).__name__}, not an object.")
    if values.get('format') != FORMAT:
        raise UserError(
            f"'{file}': its metadata has format {values.get('format')!r}, and this version of mmcondetr reads "
            f'{FORMAT}: export it again.'
        )
    _check(values, _FIELDS, file, '')
    if values['resize'] is not None:
        _check(values['resize'], _RESIZE_FIELDS, file, 'resize.')
        values['resize'] = Resize(**{**values['resize'], 'scale': tuple(values['resize']['scale'])})
    for name in ('classes', 'mean', 'std'):
        values[name] = tuple(values[name])
    values['palette'] = tuple(tuple(colour) for colour in values['palette'])
    return Metadata(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_side(value: object) -> bool:
    return _is_count(value) and value <= MOST_PIXELS_A_SIDE


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _list_of(check: Callable[[object], bool], length: int | None = None) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, list) and (length is None or len(value) == length) and all(check(item) for item in value)
    )


_SIDE = f'a positive integer up to {MOST_PIXELS_A_SIDE}'
#: Field -> a check of its value, and a description of what is allowed.
_FIELDS = {
    **{name: (_is_text, 'text') for name in ('package', 'config', 'checkpoint', 'checkpoint_sha256', 'precision')},
    'classes': (lambda value: _list_of(_is_text)(value) and bool(value), 'a list of names'),
    'palette': (_list_of(_list_of(_is_number, 3)), 'a list of colours, each three numbers'),
    'resize': (lambda value: value is None or isinstance(value, dict), 'null or an object'),
    'pad_size_divisor': (_is_side, _SIDE),
    'mean': (_list_of(_is_number, 3), 'three numbers'),
    'std': (_list_of(lambda value: _is_number(value) and value > 0, 3), 'three positive numbers'),
    'max_detections': (_is_count, 'a positive integer'),
    'masks': (lambda value: isinstance(value, bool), 'true or false'),
    'format': (_is_count, 'a positive integer'),
}
_RESIZE_FIELDS = {
    'scale': (_list_of(_is_side, 2), f'two numbers, each {_SIDE}'),
    'keep_ratio': (lambda value: isinstance(value, bool), 'true or false'),
    'interpolation': (lambda value: value in INTERPOLATIONS, ', '.join(INTERPOLATIONS)),
}
assert set(_FIELDS) == {field.name for field in fields(Metadata)}


def _check(values: dict, allowed: dict, file: str, prefix: str) -> None:
    missing, unknown = sorted(allowed.keys() - values.keys()), sorted(values.keys() - allowed.keys())
    if missing or unknown:
        what = f'lacks {missing[0]}' if missing else f'has the unknown field {unknown[0]}'
        raise UserError(f"'{file}': its metadata {what} (at '{prefix or KEY}'): export it again.")
    for name, (is_valid, what) in allowed.items():
        if not is_valid(values[name]):
            raise UserError(f"'{file}': metadata {prefix}{name} must be {what}, and is {str(values[name])[:80]!r}.")

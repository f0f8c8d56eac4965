"""Reads COCO's panoptic JSON: types are checked while decoding, then values."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import msgspec

from mmcondetr.datasets.annotation_checks import some
from mmcondetr.datasets.annotation_file import name_file
from mmcondetr.errors import UserError

VOID = 0  # the id of pixels that belong to no segment


class PanopticImage(msgspec.Struct, gc=False):
    """``width`` and ``height`` in pixels."""

    id: int
    file_name: str
    width: int
    height: int


class Segment(msgspec.Struct, gc=False):
    """One segment of one image; ``id`` is its colour in the PNG."""

    id: int
    category_id: int
    iscrowd: int | bool


class PanopticAnnotation(msgspec.Struct, gc=False):
    """The segments of one image; ``file_name`` is that of the PNG."""

    image_id: int
    file_name: str
    segments_info: list[Segment]


class PanopticCategory(msgspec.Struct, gc=False):
    id: int
    name: str
    isthing: int | bool


class PanopticFile(msgspec.Struct, gc=False):
    """The parts that are needed; the rest is not decoded."""

    images: list[PanopticImage]
    annotations: list[PanopticAnnotation]
    categories: list[PanopticCategory]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, things first and then stuff, each in the order of the file, as mmdet numbers them."""
        return tuple(category.name for category in sorted(self.categories, key=lambda category: not category.isthing))


def read_panoptic_file(path: str, source: str) -> PanopticFile:
    """Read and check a panoptic annotation file.

    Args:
        source: The config's field that names the file, for messages.

    Raises:
        UserError: It is missing or not in COCO's panoptic format; an id is repeated, or an image or a category is
            missing.
    """
    if not os.path.isfile(path):
        raise UserError(f"Annotation file '{path}' does not exist. It comes from {source} in the config.")
    name = name_file(path, source)
    with open(path, 'rb') as file:
        data = file.read()
    try:
        content = msgspec.json.decode(data, type=PanopticFile)
    except msgspec.ValidationError as error:
        message, _, where = str(error).replace('`', "'").partition(' - at ')
        raise UserError(f"{name} is not in COCO's panoptic format: {message}{where and f', at {where}'}.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise UserError(f'{name} is not valid JSON, perhaps truncated: {error}.') from error
    _check_values(content, name)
    return content


def _check_values(content: PanopticFile, name: str) -> None:
    for part, key in (('images', 'id'), ('annotations', 'image_id'), ('categories', 'id')):
        _check_unique([getattr(entry, key) for entry in getattr(content, part)], f'{name}: {key} of {part}')
    images = {image.id for image in content.images}
    unknown = sorted({annotation.image_id for annotation in content.annotations} - images)
    if unknown:
        raise UserError(
            f'{name}: image_id of annotations must be the id of one of images, but {len(unknown)} of '
            f'{len(content.annotations)} are not: {some(unknown)}. Remove these annotations, or add their images.'
        )
    categories = {category.id for category in content.categories}
    for annotation in content.annotations:
        where = f'{name}: segments_info of image {annotation.image_id}'
        _check_unique([VOID, *(segment.id for segment in annotation.segments_info)], f'{where}: id (0 is no segment)')
        for segment in annotation.segments_info:
            if segment.category_id not in categories:
                raise UserError(
                    f'{where}: category_id {segment.category_id} of segment {segment.id} is not in categories.'
                )


def _check_unique(values: list[int], what: str) -> None:
    if len(set(values)) != len(values):
        seen: set[int] = set()
        repeated = {value for value in values if value in seen or seen.add(value)}
        raise UserError(f'{what} must appear once; repeated: {some(sorted(repeated))}.')


def check_panoptic_classes(content: PanopticFile, classes: Sequence[str], name: str) -> None:
    """Compare the classes of a file with ``metainfo['classes']``, and warn of those that are left out.

    Raises:
        UserError: A class is not in the file, or the order differs.
    """
    missing = [each for each in classes if each not in content.classes]
    extra = [each for each in content.classes if each not in classes]
    kept = tuple(each for each in content.classes if each in classes)
    if missing:
        raise UserError(
            f'The classes of the config are not those of {name}. Not in the file: {some(missing)}. In the file only: '
            f'{some(extra) or "none"}. The data set needs metainfo=dict(classes={content.classes!r}).'
        )
    if kept != tuple(classes):
        raise UserError(
            f"metainfo['classes'] must have things first, then stuff, each in the order of {name}. Write "
            f'metainfo=dict(classes={kept!r}).'
        )
    if extra:
        left_out = f"{name}: segments of classes that are not in metainfo['classes'] are void: {some(extra)}."
        warnings.warn(left_out, stacklevel=3)

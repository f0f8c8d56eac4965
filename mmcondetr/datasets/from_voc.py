"""Pascal VOC folders (Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt) as COCO, without losing a field."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmcondetr.datasets.box_formats import FIT, lies_beyond, share_possible
from mmcondetr.datasets.image_files import find_image, list_images, read_size
from mmcondetr.errors import UserError

_FLAGS = ('difficult', 'truncated', 'occluded')
_DEEPEST = 20
_BEYOND = 0.02  # of the boxes that extend beyond the size in their XML are no longer an annotator's slips
_SIDES = ('xmin', 'ymin', 'xmax', 'ymax')


class _OtherSize(NamedTuple):
    """An XML whose ``size``, (width, height) in pixels, is not that of its image; boxes as (x, y, width, height)."""

    name: str
    stated: tuple[int, int]
    found: tuple[int, int]
    boxes: list[list[float]]


def is_voc(folder: Path) -> bool:
    """Whether a folder, or its subfolder Annotations, contains XML files."""
    return any((folder / 'Annotations').glob('*.xml')) or any(folder.glob('*.xml'))


def read_voc(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read every XML; the lists in ImageSets/Main define the training images, otherwise all are used.

    Fields that COCO has no name for are kept under ``voc`` of the image or the annotation, as text or nested dicts.

    A VOC box is given by its first and last pixel, counted from 1: x1 = xmin - 1, x2 = xmax. If a file has a
    coordinate below 1, as some tools write, they count from 0: x1 = xmin, x2 = xmax; a note reports this.

    Returns:
        - COCO content by part;
        - what the user should know.

    Raises:
        UserError: an XML is broken, its image is missing, or its boxes are probably on another scale than the image.
    """
    where = folder / 'Annotations'
    paths = sorted((where if where.is_dir() else folder).glob('*.xml'))
    parsed = {path.stem: _parse(path) for path in paths}
    objects = [entry for root in parsed.values() for entry in root.findall('object')]
    from_one = all(_number(entry, side) >= 1 for entry in objects for side in ('xmin', 'ymin'))
    names = list(dict.fromkeys(sorted(str(entry.findtext('name')).strip() for entry in objects)))
    notes = [
        'boxes count pixels from 1, as VOC does: x1 = xmin - 1, x2 = xmax'
        if from_one
        else 'a coordinate is below 1, so boxes count from 0: x1 = xmin, x2 = xmax'
    ]
    images_by_name = {path.name: path for path in list_images(folder)}
    parts, wrong = {}, []
    for part, stems in _parts(folder, list(parsed)).items():
        content = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in enumerate(names, 1)])
        for stem in stems:
            if stem not in parsed:
                raise UserError(f"ImageSets of '{folder}' lists '{stem}', but there is no {stem}.xml.")
            _add_image(content, folder, stem, parsed[stem], images_by_name, from_one, names, wrong)
        parts[part] = content
    flags = Counter(flag for entry in objects for flag in _FLAGS if (entry.findtext(flag) or '0').strip() == '1')
    notes += [f'{count} objects are {flag}: they and the flag are kept' for flag, count in flags.items()]
    if wrong:
        notes.append(_judge_sizes(folder, wrong, len(paths)))
    return parts, notes


def _judge_sizes(folder: Path, wrong: list[_OtherSize], count: int) -> str:
    """What to say of XMLs with another size than their image's, if their boxes show that the image's is right.

    A box refers to the size in its XML, unless boxes extend beyond that and all of them fit their image.

    Raises:
        UserError: the boxes do not show it: they are probably on another scale than the images.
    """
    first = wrong[0]
    found = f"{len(wrong)} of {count} XMLs give another size than their image's"
    shown = ', '.join(entry.name for entry in wrong[:3]) + (', ...' if len(wrong) > 3 else '')
    boxes = np.array([box for entry in wrong for box in entry.boxes], dtype=float).reshape(-1, 4)
    if not len(boxes):
        return f'{found}, which is taken: {shown}'
    stated, sizes = (
        np.array([size for entry, size in zip(wrong, every) for _ in entry.boxes], dtype=float)
        for every in ([entry.stated for entry in wrong], [entry.found for entry in wrong])
    )
    beyond = lies_beyond(boxes, stated)[1].mean()
    if beyond >= _BEYOND and share_possible(boxes, sizes, 'xywh') >= FIT:
        return f'{found}, which is taken, as boxes extend beyond the former: {shown}'
    raise UserError(
        f"Pascal VOC folder '{folder}': {found}, such as {first.name} with {_times(first.stated)} where the image is "
        f'{_times(first.found)}. Boxes refer to the size in their XML, so they are probably on another scale: multiply '
        f'x by {first.found[0] / max(first.stated[0], 1):.4g} and y by {first.found[1] / max(first.stated[1], 1):.4g} '
        'there, or use the images they were drawn on. If the boxes do fit these images, correct <size> or remove it.'
    )


def _times(size: tuple[int, int]) -> str:
    return ' x '.join(map(str, size))


def _parse(path: Path) -> ElementTree.Element:
    try:
        text = path.read_bytes()
        if b'<!ENTITY' in text:  # entities could expand to gigabytes, and no annotation needs them
            raise UserError(f"'{path}' declares XML entities, which no annotation needs: it is refused.")
        return ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"'{path}' is not valid XML: {error}.") from error


def _number(entry: ElementTree.Element, side: str) -> float:
    try:
        value = float(entry.findtext(f'bndbox/{side}') or '')
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        name = entry.findtext('name')
        raise UserError(f"An object '{name}' has no number as bndbox/{side} in a Pascal VOC XML.")
    return value


def _parts(folder: Path, stems: list[str]) -> dict[str, list[str]]:
    """Part -> its images."""
    found = {}
    for part in ('train', 'val', 'test'):
        path = folder / 'ImageSets' / 'Main' / f'{part}.txt'
        if path.is_file():
            lines = path.read_text(encoding='utf-8').splitlines()
            found[part] = [line.split()[0] for line in lines if line.strip()]
    return {part: names for part, names in found.items() if names} if found.get('train') else {'train': stems}


def _add_image(
    content: dict[str, Any],
    folder: Path,
    stem: str,
    root: ElementTree.Element,
    images: dict[str, Path],
    from_one: bool,
    names: list[str],
    wrong: list[_OtherSize],
) -> None:
    path = images.get((root.findtext('filename') or '').strip()) or find_image(folder / 'JPEGImages', stem)
    path = path or find_image(folder, stem) or next((p for p in images.values() if p.stem == stem), None)
    if path is None:
        raise UserError(f"The image of '{stem}.xml' ({root.findtext('filename')}) is nowhere in '{folder}'.")
    width, height = read_size(path)
    stated = tuple(int(float(root.findtext(f'size/{side}') or 0)) for side in ('width', 'height'))
    image_id = len(content['images']) + 1
    file_name = path.relative_to(folder).as_posix()
    image = dict(id=image_id, file_name=file_name, width=width, height=height)
    rest = (child for child in root if child.tag not in ('object', 'filename'))
    content['images'].append(_with_rest(image, stem, rest))
    for entry in root.findall('object'):
        x1, y1, x2, y2 = (_number(entry, side) for side in _SIDES)
        x1, y1 = x1 - from_one, y1 - from_one
        annotation = dict(
            id=len(content['annotations']) + 1,
            image_id=image_id,
            category_id=names.index(str(entry.findtext('name')).strip()) + 1,
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=(x2 - x1) * (y2 - y1),
            iscrowd=0,
        )
        annotation.update({f: int(entry.findtext(f)) for f in _FLAGS if (entry.findtext(f) or '').strip().isdigit()})
        if (entry.findtext('pose') or '').strip():
            annotation['pose'] = entry.findtext('pose').strip()
        done = {'name', 'bndbox'} | annotation.keys() & {'pose', *_FLAGS}
        rest = (child for child in entry if child.tag not in done)
        content['annotations'].append(_with_rest(annotation, stem, rest))
    if stated not in ((width, height), (0, 0)):
        boxes = [entry['bbox'] for entry in content['annotations'] if entry['image_id'] == image_id]
        wrong.append(_OtherSize(f'{stem}.xml', stated, (width, height), boxes))


def _with_rest(converted: dict[str, Any], stem: str, elements: Iterable[ElementTree.Element]) -> dict[str, Any]:
    """Add the elements of an XML that are not converted."""
    rest = _to_plain(elements, f'{stem}.xml')
    return dict(converted, voc=rest) if rest else converted


def _to_plain(elements: Iterable[ElementTree.Element], name: str, depth: int = 0) -> dict[str, Any]:
    """Tag -> text or, of an element with parts, a dict; a list of them if the tag is repeated; without empty ones."""
    if depth > _DEEPEST:
        raise UserError(f"'{name}' has elements nested more than {_DEEPEST} deep.")
    found: dict[str, list] = {}
    for element in elements:
        value = _to_plain(element, name, depth + 1) if len(element) else (element.text or '').strip()
        if value:
            found.setdefault(element.tag, []).append(value)
    return {tag: values if values[1:] else values[0] for tag, values in found.items()}

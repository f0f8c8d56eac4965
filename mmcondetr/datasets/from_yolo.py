"""YOLO folders (images/, labels/ with one line per object, data.yaml) as COCO, without losing a box or outline."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmcondetr.datasets.box_checks import doubt_centres
from mmcondetr.datasets.image_files import IMAGE_SUFFIXES, list_images, read_size
from mmcondetr.errors import UserError

_PARTS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}


def is_yolo(folder: Path) -> bool:
    """Whether a folder has a data.yaml, or folders of images and labels."""
    return _find_yaml(folder) is not None or bool(_label_folders(folder))


def _find_yaml(folder: Path) -> Path | None:
    for path in sorted({*folder.glob('*.yaml'), *folder.glob('*.yml')}):
        content = _read_yaml(path)
        if 'names' in content and 'train' in content:
            return path
    return None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"'{path}' cannot be read as YAML: {error}") from error
    return content if isinstance(content, dict) else {}


def _label_folders(folder: Path) -> list[Path]:
    return [path for path in (folder / 'labels', *folder.glob('*/labels')) if path.is_dir()]


def read_yolo(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read every label file; data.yaml or the folders' names define the training images, otherwise all are used.

    A line is ``class cx cy width height`` in fractions of the image, or ``class x1 y1 x2 y2 x3 y3 ...``, an outline,
    which is kept as the segmentation and from which the box is computed. If data.yaml has ``kpt_shape``, it may be a
    box followed by key points, which are kept as COCO's ``keypoints``.

    Returns:
        - COCO content by part;
        - what the user should know.

    Raises:
        UserError: a line cannot be read (the message names file and line), boxes are given by corners, no label file
            has the name of an image, or classes have no names.
    """
    config = _find_yaml(folder)
    settings = _read_yaml(config) if config else {}
    key_points = _key_point_shape(config, settings)
    notes: list[str] = []
    parts = {}
    for part, images in _parts(folder, settings).items():
        content: dict[str, Any] = dict(images=[], annotations=[], categories=[])
        unlabelled = sum(_add_image(content, folder, path, key_points) for path in images)
        orphans = _find_orphans(images)
        if orphans:
            found = f"{part}: {len(orphans)} label files have the name of no image, the first '{orphans[0]}'"
            if unlabelled == len(images):
                raise UserError(
                    f"YOLO folder '{folder}', {found}, and no image has a label file: a label file is named like its "
                    f"image, here '{_label_path(images[0]).name}' for '{images[0].name}' (case matters)."
                )
            notes.append(f'careful: {found}: they are not used')
        if unlabelled:
            notes.append(f'{part}: {unlabelled} images have no label file: they count as images without objects')
        _check_centres(content, images)
        parts[part] = content
    used = {entry['category_id'] for content in parts.values() for entry in content['annotations']}
    names = _class_names(folder, settings, used, notes)
    for content in parts.values():
        content['categories'] = [dict(id=number, name=name) for number, name in names.items()]
    if not used:
        raise UserError(f"YOLO folder '{folder}' has no object in any label file.")
    return parts, notes


def _parts(folder: Path, settings: dict[str, Any]) -> dict[str, list[Path]]:
    """Images by part."""
    base = folder / str(settings.get('path') or '')
    base = base if base.is_dir() else folder
    found = {}
    for part, words in _PARTS.items():
        given = next((settings[word] for word in words if settings.get(word)), None)
        places = [given] if isinstance(given, str) else list(given or [])
        images = [image for place in places for image in _images_of(base, folder, str(place))]
        for word in words:
            for place in (folder / 'images' / word, folder / word / 'images'):
                if not images and place.is_dir():
                    images = list_images(place)
        if images:
            found[part] = images
    if 'train' not in found:
        found = {'train': list_images(folder / 'images' if (folder / 'images').is_dir() else folder)}
    if not found['train']:
        raise UserError(f"YOLO folder '{folder}' has no images for training.")
    if found.get('val') == found['train']:  # as in the tutorials' data.yaml; it would measure nothing
        del found['val']
    return found


def _images_of(base: Path, folder: Path, place: str) -> list[Path]:
    """A folder, or a text file of paths; exporters often write '../train/images' for 'train/images'."""
    for path in (base / place, folder / place, folder / place.removeprefix('../')):
        if path.is_dir():
            return list_images(path.resolve())
        if path.is_file() and path.suffix == '.txt':
            lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
            return [(path.parent / line).resolve() for line in lines]
    return []


def _class_names(folder: Path, settings: dict[str, Any], used: set[int], notes: list[str]) -> dict[int, str]:
    names = settings.get('names')
    if names is None and (folder / 'classes.txt').is_file():
        names = (folder / 'classes.txt').read_text(encoding='utf-8').split('\n')
        names = [name.strip() for name in names if name.strip()]
    if names is None:
        notes.append('there are no names of classes (data.yaml or classes.txt): they are called class0, class1, ...')
        names = {number: f'class{number}' for number in range(max(used, default=-1) + 1)}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(_is_class(*entry) for entry in names.items()):
        raise UserError(f"YOLO folder '{folder}': names must be a list of words, or words by class number.")
    unknown = sorted(used - {int(number) for number in names})
    if unknown:
        raise UserError(
            f"YOLO folder '{folder}': labels have the classes {unknown}, which have no name ({len(names)})."
        )
    return {int(number): str(name) for number, name in names.items()}


def _is_class(number: Any, name: Any) -> bool:
    """Whether an entry of data.yaml's names is one; an alias in YAML can make anything of it, of any size."""
    return re.fullmatch(r'\d{1,9}', str(number)[:20]) is not None and isinstance(name, (str, int, float))


def _label_path(image: Path) -> Path:
    """The path with the last folder named images replaced by labels; beside the image if there is none."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == 'images':
            return Path(*parts[:index], 'labels', *parts[index + 1 :]).with_suffix('.txt')
    return image.with_suffix('.txt')


def _find_orphans(images: list[Path]) -> list[Path]:
    """Label files without an image of their name, where labels have folders of their own."""
    orphans = []
    for where, labels in sorted({(path.parent, _label_path(path).parent) for path in images}):
        if labels != where and labels.is_dir():
            stems = {path.stem for path in where.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
            orphans += [path for path in sorted(labels.glob('*.txt')) if path.stem not in stems | {'classes'}]
    return orphans


def _check_centres(content: dict[str, Any], images: list[Path]) -> None:
    """Raise if the labels (not outlines) are corners: the JSON can no longer name the label file."""
    entries = [entry for entry in content['annotations'] if 'segmentation' not in entry]
    boxes = np.array([entry['bbox'] for entry in entries], dtype=float).reshape(-1, 4)
    numbers = np.array([entry['image_id'] - 1 for entry in entries], dtype=int)
    sizes = np.array([(image['width'], image['height']) for image in content['images']], dtype=float)[numbers]
    doubt = doubt_centres(boxes, sizes, numbers, [str(_label_path(path)) for path in images])
    if doubt is not None and doubt.level == 'error':
        raise UserError(f'YOLO labels: {doubt.message}.')


def _key_point_shape(config: Path | None, settings: dict[str, Any]) -> tuple[int, int]:
    """The number of key points and of values of each: x and y, or x, y and visibility; (0, 0) if there are none."""
    shape = settings.get('kpt_shape')
    if shape is None:
        return 0, 0
    is_shape = isinstance(shape, list) and len(shape) == 2 and all(type(side) is int for side in shape)
    if not is_shape or shape[0] < 1 or shape[1] not in (2, 3):
        raise UserError(f"'{config}': kpt_shape must be [number of key points, 2 or 3], got {str(shape)[:60]}.")
    return shape[0], shape[1]


def _add_image(content: dict[str, Any], folder: Path, path: Path, key_points: tuple[int, int]) -> bool:
    """Add an image with its objects; returns whether it has no label file."""
    width, height = read_size(path)
    image_id = len(content['images']) + 1
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    content['images'].append(dict(id=image_id, file_name=name, width=width, height=height))
    labels = _label_path(path)
    if not labels.is_file():
        return True
    for number, line in enumerate(labels.read_text(encoding='utf-8').splitlines(), start=1):
        if line.strip():
            entry = _parse_line(line, f"'{labels}', line {number}", width, height, key_points)
            content['annotations'].append(dict(id=len(content['annotations']) + 1, image_id=image_id, **entry))
    return False


def _parse_line(line: str, where: str, width: int, height: int, key_points: tuple[int, int]) -> dict[str, Any]:
    words = line.split()
    try:
        label, numbers = int(float(words[0])), [float(word) for word in words[1:]]
    except ValueError:
        raise UserError(f'{where}: {line.strip()!r} are not numbers.') from None
    if not all(map(math.isfinite, numbers)):
        raise UserError(f'{where}: {line.strip()!r} are not finite numbers.')
    more: dict[str, Any] = {}
    count, values = key_points
    if count and len(numbers) == 4 + count * values:
        points = [numbers[index : index + values] for index in range(4, len(numbers), values)]
        points = [(x * width, y * height, int(seen[0]) if seen else 2) for x, y, *seen in points]
        more = dict(keypoints=[side for point in points for side in point])
        more['num_keypoints'] = sum(point[2] > 0 for point in points)
        numbers = numbers[:4]
    if len(numbers) < 4 or (len(numbers) > 4 and (len(numbers) < 6 or len(numbers) % 2)):
        raise UserError(f'{where}: expected class, cx, cy, width, height (or an outline), got {line.strip()!r}.')
    if max(numbers) > 1.5:
        raise UserError(f'{where}: {max(numbers):g} is not a fraction of the image; YOLO labels are from 0 to 1.')
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
        return dict(category_id=label, bbox=box, area=box[2] * box[3], iscrowd=0, **more)
    xs, ys = [x * width for x in numbers[::2]], [y * height for y in numbers[1::2]]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    outline = [side for point in zip(xs, ys) for side in point]
    area = abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2  # the shoelace formula
    return dict(category_id=label, bbox=box, area=area, iscrowd=0, segmentation=[outline])

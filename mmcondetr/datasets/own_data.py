"""Converts users' data sets (COCO JSON, YOLO or Pascal VOC) to COCO JSONs for training and validation."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcondetr.datasets.annotation_file import AnnotationError, parse_json
from mmcondetr.datasets.annotations import read_checked
from mmcondetr.datasets.from_voc import is_voc, read_voc
from mmcondetr.datasets.from_yolo import is_yolo, read_yolo
from mmcondetr.datasets.image_roots import PART_WORDS, count_missing, find_image_root
from mmcondetr.errors import UserError

WRITER = 'mmcondetr init'


@dataclass
class OwnData:
    """A data set that was found.

    Attributes:
        kind: 'COCO', 'YOLO' or 'Pascal VOC'.
        files: COCO JSON by part, 'train', 'val' and perhaps 'test'.
        image_roots: folder that the file names of a part are relative to.
        notes: what the user should know, one line each.
    """

    kind: str
    files: dict[str, Path]
    image_roots: dict[str, Path]
    notes: list[str] = field(default_factory=list)


def find_own_data(
    data: str | os.PathLike,
    val: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    val_share: float = 0.2,
    seed: int = 0,
    val_images: str | os.PathLike | None = None,
) -> OwnData:
    """Recognise a data set, convert it to COCO JSONs beside it, and split it if it has only one part.

    Args:
        data: a COCO JSON, or a folder: of COCO JSONs, YOLO or Pascal VOC.
        val: a COCO JSON for validation, if ``data`` is one for training.
        images: folder that the file names of the COCO JSON for training are relative to; None to search for it.
        val_share: fraction of the images for validation, if there is only one part.
        seed: of that split.
        val_images: as ``images``, for validation.

    Raises:
        UserError: there is no such data set, or a file cannot be read; the message names it.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise UserError(f"'{data}' does not exist: name a COCO JSON, a YOLO folder or a Pascal VOC folder.")
    if not 0 < val_share < 1:
        raise UserError(f'The share of images for validation must lie between 0 and 1, got {val_share:g}.')
    path = path.resolve()
    if path.is_file():
        found = _of_json(path, None if val is None else Path(val).expanduser().resolve())
    elif is_voc(path):
        found = _converted('Pascal VOC', path, *read_voc(path))
    elif is_yolo(path):
        found = _converted('YOLO', path, *read_yolo(path))
    else:
        found = _of_folder(path)
    for part, file in found.files.items():
        _refuse_wrong(file, part)
    if found.kind == 'COCO':
        _find_images(found, dict(train=images, val=val_images))
    elif images is not None:
        raise UserError(f'--images is for COCO JSONs; {found.kind} defines the location of its images.')
    if 'val' not in found.files:
        if val_images is not None:
            raise UserError('--val-images needs data for validation: --val, or a folder with a JSON of that name.')
        _split(found, val_share, seed)
    return found


def _refuse_wrong(path: Path, part: str) -> None:
    """Raise if training on the file would fail: sizes and classes would be chosen from wrong boxes."""
    load_json(path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # mmcondetr check reports them
        read_checked(str(path), '', training=part == 'train')


def _converted(kind: str, folder: Path, parts: dict[str, dict], notes: list[str]) -> OwnData:
    """Write COCO dicts beside the data set."""
    files = {}
    for name, content in parts.items():
        files[name] = _write(folder / f'coco_{name}.json', content)
        boxes = len(content['annotations'])
        notes.append(f'{kind} -> {files[name]}: {len(content["images"])} images, {boxes} boxes')
    return OwnData(kind, files, dict.fromkeys(files, folder), notes)


def _of_json(path: Path, val: Path | None) -> OwnData:
    files = {'train': path}
    if val is not None:
        if not val.is_file():
            raise UserError(f"Annotation file '{val}' does not exist (--val).")
        files['val'] = val
    return OwnData('COCO', files, {})


def _find_images(data: OwnData, given: dict[str, str | os.PathLike | None]) -> None:
    """One folder per part: training and validation images may be in different folders, test images may be missing."""
    for part, path in [*data.files.items()]:
        images = load_json(path)['images']
        try:
            root = find_image_root(path, images, part, given.get(part), '--val-images' if part == 'val' else '--images')
        except UserError:
            if part != 'test':
                raise
            data.notes.append(f"'{path}' is left out: its images are not found near it, or in several folders")
            del data.files[part]
            continue
        data.image_roots[part] = root
        missing, first = count_missing(root, images)
        if missing:
            data.notes.append(f"{missing} of {len(images)} images of '{path}' are not in {root}, such as {first}")


def _of_folder(folder: Path) -> OwnData:
    """A folder with COCO JSONs named after their part, here or one level below."""
    files: dict[str, Path] = {}
    candidates, broken = [], []
    for file in sorted({*folder.glob('*.json'), *folder.glob('*/*.json')}):
        try:
            if _is_coco(_parse(file)):
                candidates.append(file)
        except UserError as error:
            broken.append((file, error))
    for part, words in PART_WORDS.items():
        named = _named(candidates, folder, words)
        detection = [file for file in named if 'instances' in file.name] or named
        if len(detection) > 1:
            raise UserError(
                f"'{folder}' has several JSONs for {part}: {', '.join(map(str, detection))}. Name one, and --val."
            )
        if detection:
            files[part] = detection[0]
        else:
            for file, error in broken:
                if _named([file], folder, words):
                    raise error
    if not files and len(candidates) == 1:
        files['train'] = candidates[0]
    if 'train' not in files:
        if broken:
            raise broken[0][1]
        raise UserError(
            f"'{folder}' is not recognised: there is no COCO JSON in it, no YOLO labels (images/ and labels/, or "
            'data.yaml) and no Pascal VOC Annotations/*.xml.'
        )
    return OwnData('COCO', files, {})


def _named(files: list[Path], folder: Path, words: tuple[str, ...]) -> list[Path]:
    """The files whose name, or folder below the given one, contains one of the words."""
    return [file for file in files if any(word in file.as_posix()[len(str(folder)) :] for word in words)]


def _is_coco(content: Any) -> bool:
    if not isinstance(content, dict) or content.get('written_by') == WRITER:  # what an earlier call wrote
        return False
    return {'images', 'annotations', 'categories'} <= set(content)


def _parse(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"Annotation file '{path}' cannot be read: {error.strerror}.") from error
    except AnnotationError as error:
        raise UserError(f"Annotation file '{path}' {error}.") from error


def load_json(path: Path) -> dict[str, Any]:
    """Read a COCO JSON that has its three lists; ``mmcondetr check`` checks the entries.

    Raises:
        UserError: it cannot be read, or is not in COCO format.
    """
    content = _parse(path)
    parts = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in parts):
        raise UserError(f"Annotation file '{path}' is not in COCO format: it needs the lists {', '.join(parts)}.")
    for part, keys in zip(parts, (('id', 'file_name'), ('image_id', 'category_id', 'bbox'), ('id', 'name'))):
        for index, entry in enumerate(content[part]):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise UserError(f"Annotation file '{path}': {part}[{index}] lacks {', '.join(lacking)}.")
    if not content['images']:
        raise UserError(f"Annotation file '{path}' lists no images.")
    return content


def _split(found: OwnData, share: float, seed: int) -> None:
    """Write training and validation JSONs beside the given one, with images assigned at random."""
    source = found.files['train']
    content = load_json(source)
    images = sorted(content['images'], key=lambda image: str(image['file_name']))
    random.Random(seed).shuffle(images)
    count = max(1, round(share * len(images)))
    if count >= len(images):
        raise UserError(f"'{source}' lists {len(images)} image: one for training and one for validation are needed.")
    stem = source.stem.removeprefix('coco_').removesuffix('_train').removesuffix('train') or 'own'
    for part, chosen in (('val', images[:count]), ('train', images[count:])):
        ids = {image['id'] for image in chosen}
        kept = dict(
            content,
            images=[image for image in content['images'] if image['id'] in ids],
            annotations=[entry for entry in content['annotations'] if entry['image_id'] in ids],
        )
        found.files[part] = _write(source.with_name(f'coco_{stem}_{part}.json'), kept)
        found.image_roots[part] = found.image_roots['train']
    found.notes.append(
        f'one part only, split by seed {seed}: {len(images) - count} images to train ({found.files["train"]}), {count} '
        f'to validate ({found.files["val"]}). Photos of one scene in both would make validation look too good: check.'
    )


def _write(path: Path, content: dict[str, Any]) -> Path:
    try:
        path.write_text(json.dumps(dict(content, written_by=WRITER)), encoding='utf-8')
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}.") from error
    return path


def count_boxes(content: dict[str, Any]) -> Counter[str]:
    """Number of boxes by category name, including categories without any."""
    names = {category['id']: category['name'] for category in content['categories']}
    counts = Counter({name: 0 for name in names.values()})
    counts.update(names[entry['category_id']] for entry in content['annotations'] if entry['category_id'] in names)
    return counts

"""Converts users' data sets (COCO JSON, YOLO or Pascal VOC) to COCO JSONs for training and validation."""

from __future__ import annotations

import os
import random
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcondetr.datasets.annotation_checks import check_values, repair
from mmcondetr.datasets.annotation_file import AnnotationFile, Image, decode, name_file, read_annotations
from mmcondetr.datasets.annotations import raise_first
from mmcondetr.datasets.from_voc import is_voc, read_voc
from mmcondetr.datasets.from_yolo import is_yolo, read_yolo
from mmcondetr.datasets.image_files import describe_sizes, read_size
from mmcondetr.datasets.image_roots import PART_WORDS, count_missing, find_image_root
from mmcondetr.datasets.own_json import is_coco, load_json, parse_file, to_text, write_all
from mmcondetr.datasets.segmentation import count_outlines
from mmcondetr.errors import UserError

_THREADS = 16  # that read headers of images: they wait for the disk


@dataclass
class OwnData:
    """A data set that was found.

    Attributes:
        kind: 'COCO', 'YOLO' or 'Pascal VOC'.
        files: COCO JSON by part, 'train', 'val' and perhaps 'test'.
        contents: of these files.
        image_roots: folder that the file names of a part are relative to.
        notes: what the user should know, one line each.
    """

    kind: str
    files: dict[str, Path]
    contents: dict[str, dict[str, Any]]
    image_roots: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_own_data(
    data: str | os.PathLike,
    val: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    val_share: float = 0.2,
    seed: int = 0,
    val_images: str | os.PathLike | None = None,
    force: bool = False,
) -> OwnData:
    """Recognise a data set, convert it to COCO JSONs beside it, and split it if it has only one part.

    Nothing is written if training on the data would fail.

    Args:
        data: a COCO JSON, or a folder: of COCO JSONs, YOLO or Pascal VOC.
        val: a COCO JSON for validation, if ``data`` is one for training.
        images: folder that the file names of the COCO JSON for training are relative to; None to search for it.
        val_share: fraction of the images for validation, if there is only one part.
        seed: of that split.
        val_images: as ``images``, for validation.
        force: replace JSONs that an earlier call wrote with other content.

    Raises:
        UserError: there is no such data set, a file cannot be read or has wrong values, or one of another origin is in
            the place of one to write; the message names it.
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
    texts = {}
    if found.kind == 'COCO':
        decoded = {part: read_annotations(str(file)) for part, file in found.files.items()}
        _find_images(found, dict(train=images, val=val_images))
    else:
        if images is not None:
            raise UserError(f'--images is for COCO JSONs; {found.kind} defines the location of its images.')
        texts = {file: to_text(found.contents[part]) for part, file in found.files.items()}
        decoded = {part: decode(texts[file].encode()) for part, file in found.files.items()}
    for part in found.files:
        if found.kind == 'COCO':  # other formats take the sizes of the images
            _check_sizes(part, str(found.files[part]), decoded[part], found.image_roots[part])
        _check_part(found, part, decoded[part], path)
    if 'val' not in found.files:
        if val_images is not None:
            raise UserError('--val-images needs data for validation: --val, or a folder with a JSON of that name.')
        texts.update(_split(found, val_share, seed))
    write_all(texts, force)
    return found


def _check_part(found: OwnData, part: str, file: AnnotationFile, given: Path) -> None:
    """Raise if training on a part would fail: sizes and classes would be chosen from wrong boxes."""
    path, name = str(found.files[part]), name_file(str(found.files[part]))
    if found.kind != 'COCO':  # the JSON is not written yet, and would be written again from the same labels
        path, name = '', f"{found.kind} folder '{given}' ({part})"
    report = check_values(file, None, part == 'train', path, folder=str(found.image_roots[part]))
    raise_first(report, name)
    if part == 'train' and (outlines := count_outlines(file)):
        found.notes.append(_offer_masks(outlines, len(file.annotations)))
    # Other warnings wait for mmcondetr check; the classes are those of the training data.
    said = ('bbox', 'name') if part == 'train' else 'bbox'
    found.notes += [f'careful: {part}: {one.message}' for one in report.warnings if one.path.endswith(said)]


def _offer_masks(outlines: int, count: int) -> str:
    if outlines == count:
        return 'the annotations have outlines (segmentation): masks can be trained, too, as docs/masks.md shows'
    return (
        f'{outlines} of {count} annotations have outlines (segmentation): with one in each, masks could be trained, '
        'too, as docs/masks.md shows'
    )


def _check_sizes(part: str, path: str, file: AnnotationFile, folder: Path) -> None:
    """Raise if images have another size than stated, as training would, before boxes are judged by sizes."""

    def look(image: Image) -> tuple[int, int] | None:
        try:
            return read_size(folder / image.file_name)
        except UserError:  # missing or broken: counted, or reported by mmcondetr check
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = zip(file.images, pool.map(look, file.images))
        wrong = [
            (image.file_name, size, (image.width, image.height))
            for image, size in sizes
            if size not in (None, (image.width, image.height))
        ]
    if wrong:
        command = repair(path, f'--image-sizes {shlex.quote(str(folder))}', "reads the images' sizes")
        raise UserError(f'{part}: {describe_sizes(wrong, len(file.images), path, command)}.')


def _converted(kind: str, folder: Path, parts: dict[str, dict], notes: list[str]) -> OwnData:
    """COCO dicts, to be written beside the data set."""
    files = {name: folder / f'coco_{name}.json' for name in parts}
    for name, content in parts.items():
        boxes = len(content['annotations'])
        notes.append(f'{kind} -> {files[name]}: {len(content["images"])} images, {boxes} boxes')
    return OwnData(kind, files, parts, dict.fromkeys(files, folder), notes)


def _of_json(path: Path, val: Path | None) -> OwnData:
    files = {'train': path}
    if val is not None:
        if not val.is_file():
            raise UserError(f"Annotation file '{val}' does not exist (--val).")
        files['val'] = val
    return _of_files(files)


def _of_files(files: dict[str, Path]) -> OwnData:
    return OwnData('COCO', files, {part: load_json(path) for part, path in files.items()})


def _find_images(data: OwnData, given: dict[str, str | os.PathLike | None]) -> None:
    """One folder per part: training and validation images may be in different folders, test images may be missing."""
    for part, path in [*data.files.items()]:
        images = data.contents[part]['images']
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
            if is_coco(parse_file(file)):
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
    return _of_files(files)


def _named(files: list[Path], folder: Path, words: tuple[str, ...]) -> list[Path]:
    """The files whose name, or folder below the given one, contains one of the words."""
    return [file for file in files if any(word in file.as_posix()[len(str(folder)) :] for word in words)]


def _split(found: OwnData, share: float, seed: int) -> dict[Path, str]:
    """Assign images to training and validation at random; returns the JSONs to write beside the given one."""
    source, content = found.files['train'], found.contents['train']
    images = sorted(content['images'], key=lambda image: str(image['file_name']))
    random.Random(seed).shuffle(images)
    count = max(1, round(share * len(images)))
    if count >= len(images):
        raise UserError(f"'{source}' lists {len(images)} image: one for training and one for validation are needed.")
    stem = source.stem.removeprefix('coco_').removesuffix('_train').removesuffix('train') or 'own'
    texts = {}
    for part, chosen in (('val', images[:count]), ('train', images[count:])):
        ids = {image['id'] for image in chosen}
        file = source.with_name(f'coco_{stem}_{part}.json')
        if file == source:
            raise UserError(f"'{source}' is named like one part of a split: pass the other as --val, or rename it.")
        found.files[part], found.image_roots[part] = file, found.image_roots['train']
        found.contents[part] = dict(
            content,
            images=[image for image in content['images'] if image['id'] in ids],
            annotations=[entry for entry in content['annotations'] if entry['image_id'] in ids],
        )
        texts[file] = to_text(found.contents[part])
    found.notes.append(
        f'one part only, split by seed {seed}: {len(images) - count} images to train ({found.files["train"]}), {count} '
        f'to validate ({found.files["val"]}). Photos of one scene in both would make validation look too good: check.'
    )
    return texts

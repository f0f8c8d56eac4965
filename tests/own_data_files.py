"""The shapes data set in users' formats: a COCO JSON, a YOLO folder and a Pascal VOC folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mmcondetr.datasets.shapes import generate_shapes


def make_shapes(folder: Path, num_train: int = 6, num_val: int = 3, image_size: int = 64) -> Path:
    """COCO: annotations/train.json, annotations/val.json, train/, val/."""
    generate_shapes(str(folder), num_train, num_val, image_size, 0)
    return folder


def _annotated(source: Path, part: str):
    """Images with their boxes and the names of their classes."""
    content = json.loads((source / 'annotations' / f'{part}.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    for image in content['images']:
        entries = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
        yield image, [(names[entry['category_id']], entry['bbox']) for entry in entries]


def class_names(source: Path) -> list[str]:
    return [category['name'] for category in json.loads((source / 'annotations/train.json').read_text())['categories']]


def write_yolo(source: Path, target: Path, parts: tuple[str, ...] = ('train', 'val')) -> Path:
    names = class_names(source)
    for part in parts:
        (target / 'images' / part).mkdir(parents=True)
        (target / 'labels' / part).mkdir(parents=True)
        for image, objects in _annotated(source, part):
            shutil.copy(source / part / image['file_name'], target / 'images' / part)
            width, height = image['width'], image['height']
            lines = [
                f'{names.index(name)} {(x + w / 2) / width!r} {(y + h / 2) / height!r} {w / width!r} {h / height!r}\n'
                for name, (x, y, w, h) in objects
            ]
            (target / 'labels' / part / f'{Path(image["file_name"]).stem}.txt').write_text(''.join(lines))
    listed = ''.join(f'{part}: images/{part}\n' for part in parts)
    (target / 'data.yaml').write_text(f'path: .\n{listed}names: {names}\n')
    return target


def write_voc(source: Path, target: Path, parts: tuple[str, ...] = ('train',)) -> Path:
    """Boxes are rounded to whole pixels, as VOC has them."""
    (target / 'Annotations').mkdir(parents=True)
    (target / 'JPEGImages').mkdir()
    for part in parts:
        for image, objects in _annotated(source, part):
            stem = f'{part}_{Path(image["file_name"]).stem}'
            file_name = f'{stem}{Path(image["file_name"]).suffix}'
            shutil.copy(source / part / image['file_name'], target / 'JPEGImages' / file_name)
            boxes = ''.join(
                f'<object><name>{name}</name><pose>Left</pose><difficult>1</difficult><bndbox><xmin>{round(x) + 1}'
                f'</xmin><ymin>{round(y) + 1}</ymin><xmax>{round(x + w)}</xmax><ymax>{round(y + h)}</ymax></bndbox>'
                '</object>'
                for name, (x, y, w, h) in objects
            )
            (target / 'Annotations' / f'{stem}.xml').write_text(
                f'<annotation><filename>{file_name}</filename><size><width>{image["width"]}</width><height>'
                f'{image["height"]}</height></size>{boxes}</annotation>'
            )
    return target

"""Entries of a COCO file that say one thing twice: images listed more than once, and classes of almost one name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmcondetr.datasets.annotation_file import AnnotationFile


class Repeated(NamedTuple):
    """A file that is listed more than once.

    Attributes:
        places: indices of its entries in ``images``.
        counts: annotations of each.
        alike: whether all have the same annotations.
    """

    file_name: str
    places: tuple[int, ...]
    counts: tuple[int, ...]
    alike: bool


def find_repeated_images(file: AnnotationFile, image_of: np.ndarray) -> list[Repeated]:
    """Files that are listed more than once, in the order of the file.

    Args:
        image_of: (A,) index of each annotation's image, -1 if there is none.
    """
    names = Counter(image.file_name for image in file.images)
    places: dict[str, list[int]] = {}
    for index, image in enumerate(file.images):
        if names[image.file_name] > 1:
            places.setdefault(image.file_name, []).append(index)
    contents: dict[int, Counter] = {index: Counter() for indices in places.values() for index in indices}
    for index in np.flatnonzero(np.isin(image_of, list(contents))).tolist():
        entry = file.annotations[index]
        told = entry.category_id, entry.bbox, bool(entry.iscrowd), bool(entry.ignore), bytes(entry.segmentation)
        contents[image_of[index]][told] += 1
    found = []
    for name, indices in places.items():
        # Entries of one id share their annotations, which are those of the last; that ids repeat is said elsewhere.
        distinct = {file.images[index].id: contents[index] for index in indices}
        first, *others = distinct.values()
        counts = tuple(contents[index].total() for index in indices)
        found.append(Repeated(name, tuple(indices), counts, all(other == first for other in others)))
    return found


def find_similar_names(names: Sequence[str]) -> list[list[int]]:
    """Indices of classes whose names differ only in case or in blanks around words, if there are such."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(' '.join(name.split()).casefold(), []).append(index)
    return [group for group in groups.values() if len({names[index] for index in group}) > 1]

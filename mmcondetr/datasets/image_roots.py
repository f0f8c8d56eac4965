"""Finds the images of a COCO JSON, whose file names are relative to a folder that the JSON does not name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmcondetr.datasets.image_files import read_size
from mmcondetr.errors import UserError

#: Names of the parts of a data set in file and folder names.
PART_WORDS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
_LOOKED_AT = 20  # number of images whose sizes are compared


def find_image_root(
    path: Path,
    images: Sequence[dict],
    part: str,
    given: str | os.PathLike | None = None,
    option: str = '--images',
) -> Path:
    """The folder that the file names of one part are relative to.

    It is searched beside and below the JSON, then beside and below the JSON's folder. Parts may have equal file names
    (each numbered from 1), so an existing file proves little. A folder named after the part is preferred, then one
    whose images have the sizes stated in the JSON; if several are left, the user must choose.

    Args:
        path: the JSON.
        images: its list of images.
        part: 'train', 'val' or 'test'.
        given: the folder, if the user has named it.
        option: the option that names it.

    Raises:
        UserError: there is no such folder, or several are possible.
    """
    names = [str(image['file_name']) for image in images]
    if given is not None:
        root = Path(given).expanduser().resolve()
        if not (root / names[0]).is_file():
            raise UserError(f"'{root / names[0]}' does not exist: '{path}' names it, and {option} the folder.")
        return root
    for base in (path.parent, path.parent.parent):
        counts = {root: count for root in _near(base) if (count := _count(root, names))}
        if counts:
            break
    else:
        raise UserError(f"Image '{names[0]}' of '{path}' is not found near it: name the images' folder with {option}.")
    return _choose(path, images, part, counts, option)


def count_missing(root: Path, images: Sequence[dict]) -> tuple[int, str]:
    """How many images do not exist, and the first of them."""
    missing = [name for image in images if not (root / (name := str(image['file_name']))).is_file()]
    return len(missing), missing[0] if missing else ''


def _near(base: Path) -> list[Path]:
    """A folder and its subfolders, two levels deep; each once, whatever names lead to it."""
    first = _folders(base)
    found = [base, *first, *(below for folder in first for below in _folders(folder))]
    return list({root.resolve(): root for root in reversed(found)}.values())[::-1]


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith('.'))
    except OSError:  # a folder that this user may not read
        return []


def _count(root: Path, names: Sequence[str]) -> int:
    """How many of the files exist; 0 if none of a sample does."""
    some = names[:: max(1, len(names) // 50)]
    return sum((root / name).is_file() for name in names) if _any(root, some) else 0


def _any(root: Path, names: Iterable[str]) -> bool:
    return any((root / name).is_file() for name in names)


def _choose(path: Path, images: Sequence[dict], part: str, counts: dict[Path, int], option: str) -> Path:
    most = max(counts.values())
    best = [root for root, count in counts.items() if count == most]
    named = [root for root in counts if _is_named(root, part)]
    if len(named) == 1 and counts[named[0]] < most:
        raise UserError(
            f"'{named[0]}' has {counts[named[0]]} of the {len(images)} images of '{path}', and '{best[0]}' {most} of "
            f'these names: name the right folder with {option}.'
        )
    other_parts = [other for other in PART_WORDS if other != part]
    best = [root for root in best if root in named] or best
    best = [root for root in best if _sizes_fit(root, images)] or best
    best = [root for root in best if not any(_is_named(root, other) for other in other_parts)] or best
    if len(best) > 1:
        shown = ', '.join(f"'{root}'" for root in best[:3])
        raise UserError(f"The images of '{path}' are in several folders, {shown}: name the right one with {option}.")
    return best[0]


def _is_named(root: Path, part: str) -> bool:
    """Whether the folder, or its parent, is named after the part: train2017, valid/images, images/val."""
    names = [root.name.lower(), root.parent.name.lower()] if root.name.lower() == 'images' else [root.name.lower()]
    return any(name.startswith(word) or name.endswith(word) for name in names for word in PART_WORDS[part])


def _sizes_fit(root: Path, images: Sequence[dict]) -> bool:
    """Whether a sample of images has the sizes stated in the JSON (it may state none)."""
    for image in images[:_LOOKED_AT]:
        stated = image.get('width'), image.get('height')
        file = root / str(image['file_name'])
        if not file.is_file() or None in stated:
            continue
        try:
            if read_size(file) != stated:
                return False
        except UserError:  # a broken image proves nothing; mmcondetr check reports it
            continue
    return True

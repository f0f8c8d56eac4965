"""Records which checkpoints a run has written, so that it removes no others, and how far it was validated."""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from pathlib import Path
from string import Formatter
from typing import Any

from mmengine.logging import print_log

from mmcondetr.writing import is_regular_file, replacing

STOPPED = 'stopped.pth'
"""Name of the checkpoint of a training stopped between two regular ones; the next checkpoint removes it."""

_NAME = '.checkpoints.json'
_LARGEST = 1 << 20  # bytes of that file, thousands of names


def _names_of(template: str) -> re.Pattern:
    """Matches the names that a hook with this ``filename_tmpl`` writes, all of them in one folder."""
    parts = (
        (re.escape(text), r'[0-9]{1,18}' if field is not None else '')
        for text, field, *_ in Formatter().parse(template)
    )
    step = ''.join(text + digits for text, digits in parts)
    return re.compile(rf'(?!.*[/\\])(?:(?:best_[^\x00-\x1f\x7f]{{1,200}}_)?{step}|{re.escape(STOPPED)})')


class WrittenFiles:
    """The names of the checkpoints that a run has written into its folder, kept in a file there between starts.

    A checkpoint contains the number of its run. The older files that it names count only if the folder is that run's:
    ``--resume A/epoch_2.pth --work-dir B`` starts with an empty list, and so does a checkpoint from somebody else,
    which could name any path. A stranger's folder may come with a list that matches its checkpoint, so of a list only
    names that the hook itself gives to checkpoints count: no path, and no other file of the folder.

    Args:
        folder: where the run writes; None if that is not a local folder, and the list ends with the process.
        run: the number in the resumed checkpoint; None for a new run. It may be of any type.
        template: the hook's ``filename_tmpl``.

    Attributes:
        validated: the iteration after which the run was last validated; None if unknown.
    """

    def __init__(self, folder: str | os.PathLike | None, run: Any, template: str = 'epoch_{}.pth') -> None:
        self._file = None if folder is None else Path(folder) / _NAME
        self._names: set[str] = set()
        self.validated: int | None = 0
        known = self._read()
        if isinstance(run, str) and known.get('run') == run:
            self.run = run
            self._names.update(self._checked(known.get('names', []), template))
            validated = known.get('validated')
            self.validated = validated if type(validated) is int else None
        else:
            self.run = uuid.uuid4().hex
            self.validated = None if run is not None else 0

    def _read(self) -> dict:
        try:
            ours = self._file is not None and is_regular_file(self._file) and self._file.stat().st_size <= _LARGEST
            known = json.loads(self._file.read_text()) if ours else {}
        except (OSError, ValueError, RecursionError):
            known = {}
        return known if isinstance(known, dict) else {}

    def _checked(self, names: Any, template: str) -> list[str]:
        """Those of the names in the file that are of checkpoints; says which are not."""
        names, pattern = names if isinstance(names, list) else [names], _names_of(template)
        good, others = [], []
        for name in names:
            (good if isinstance(name, str) and pattern.fullmatch(name) else others).append(name)
        if others:
            shown = ', '.join(ascii(name)[:60] for name in others[:3]) + (', ...' if len(others) > 3 else '')
            print_log(
                f"'{self._file}': {len(others)} of its names are not of checkpoints that training writes there "
                f'({shown}). They are ignored, and such files are never removed.',
                'current',
                logging.WARNING,
            )
        return good

    def add(self, name: str) -> None:
        """Add a name, before the file of that name is written."""
        if name not in self._names:
            self._names.add(name)
            self._save()

    def discard(self, name: str) -> None:
        """Remove a name, after the file of that name was removed."""
        if name in self._names:
            self._names.remove(name)
            self._save()

    def note_validation(self, iteration: int) -> None:
        """Record that the run was validated after this iteration, and its best checkpoint written."""
        self.validated = iteration
        self._save()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def _save(self) -> None:
        if self._file is not None:
            with replacing(self._file) as temporary:
                known = dict(run=self.run, names=sorted(self._names), validated=self.validated)
                temporary.write_text(json.dumps(known))

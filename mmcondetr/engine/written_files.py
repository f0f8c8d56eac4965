"""Records which checkpoints a run has written, so that it removes no others, and how far it was validated."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from mmcondetr.writing import replacing

_NAME = '.checkpoints.json'


class WrittenFiles:
    """The names of the checkpoints that a run has written into its folder, kept in a file there between starts.

    A checkpoint contains the number of its run. The older files that it names count only if the folder is that run's:
    ``--resume A/epoch_2.pth --work-dir B`` starts with an empty list, and so does a checkpoint from somebody else,
    which could name any path.

    Args:
        folder: where the run writes; None if that is not a local folder, and the list ends with the process.
        run: the number in the resumed checkpoint; None for a new run.

    Attributes:
        validated: the iteration after which the run was last validated; None if unknown.
    """

    def __init__(self, folder: str | os.PathLike | None, run: str | None) -> None:
        self._file = None if folder is None else Path(folder) / _NAME
        self._names: set[str] = set()
        self.validated: int | None = 0
        known = self._read()
        if run is not None and known.get('run') == run:
            self.run = run
            names = known.get('names')
            self._names.update(map(str, names if isinstance(names, list) else ()))
            validated = known.get('validated')
            self.validated = validated if type(validated) is int else None
        else:
            self.run = uuid.uuid4().hex
            self.validated = None if run is not None else 0

    def _read(self) -> dict:
        try:
            known = json.loads(self._file.read_text()) if self._file else {}
        except (OSError, ValueError, RecursionError):
            known = {}
        return known if isinstance(known, dict) else {}

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

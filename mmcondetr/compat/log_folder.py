"""A folder of its own for each run's log.

mmengine names the folder by the second, and writes into one that is there. A work directory from a stranger can
contain folders for the coming seconds, in which the names of the log files are links to files elsewhere. And it names
the logger by the second, too: a run that begins in the second of another in its process would get that one's.
"""

from __future__ import annotations

import os
import secrets
from functools import wraps
from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process

_names: set[str] = set()  # of this process's runs


def patch_log_folder(runner: type) -> None:
    """Let mmengine's ``Runner`` create its log folder, under another name if that of the second is taken."""
    original = runner.setup_env
    if hasattr(original, '__wrapped__'):
        return

    @wraps(original)
    def setup_env(self: Any, env_cfg: dict) -> None:
        original(self, env_cfg)
        names = [_free_name(self.work_dir, self._timestamp)]
        broadcast_object_list(names)
        self._timestamp = names[0]
        _names.add(self._timestamp)

    runner.setup_env = setup_env


def _free_name(work_dir: str, name: str) -> str:
    """``name``, or an unguessable one that begins with it; the main process creates the folder.

    A config made in Python is dumped beside it, as ``name``.py. All processes look before it is created, since those
    on other machines may see other disks.
    """
    folder = os.path.join(work_dir, name)
    taken = name in _names or os.path.lexists(folder) or os.path.lexists(f'{folder}.py')
    taken = any(all_gather_object(taken))
    if is_main_process():
        try:
            if not taken:
                os.mkdir(folder)
                return name
        except FileExistsError:  # since then, by a run that began in the same second
            pass
        name = f'{name}_{secrets.token_hex(4)}'
        os.mkdir(os.path.join(work_dir, name))
    return name

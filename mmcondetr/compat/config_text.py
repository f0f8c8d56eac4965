"""mmengine formats a config's whole text again for each checkpoint and log: a fifth of a second of yapf each time."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def format_once(module: ModuleType) -> None:
    """Let ``mmengine.config.config`` keep the last text that it formatted, for as long as the config is the same.

    The maintained fork imports yapf where it formats, so there is nothing to replace, and it stays as slow.
    """
    original = getattr(module, 'FormatCode', None)
    if original is None or getattr(original, 'keeps_the_last', False):
        return
    last: dict[tuple[str, str], Any] = {}

    def format_code(text: str, **options: Any) -> Any:
        key = text, repr(options)
        if key not in last:
            formatted = original(text, **options)
            last.clear()
            last[key] = formatted
        return last[key]

    format_code.keeps_the_last = True
    module.FormatCode = format_code

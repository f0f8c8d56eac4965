"""Stops training with a checkpoint on SIGTERM, which Slurm and Kubernetes send some seconds before they kill."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size

_EVERY = 10  # several processes, which must stop at the same step, agree every so many steps
_SOON = 0.05  # seconds, in which a destructor ends
_listening = _asked = False


@contextmanager
def stoppable() -> Iterator[None]:
    """Within this context SIGTERM stops training before its next step; a second one ends the process immediately."""
    global _listening, _asked
    if threading.current_thread() is not threading.main_thread():  # signals can be handled only there
        yield
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)}
    signal.signal(signal.SIGTERM, _ask)
    _listening, _asked = True, False
    try:
        yield
    finally:
        _listening = False
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _ask(number: int, frame: Any) -> None:
    global _asked
    _asked = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Slurm sends it to the loader's workers, too: torch would raise immediately, in the middle of the step. A function,
    # not SIG_DFL: Python prints an error if a signal has arrived whose handler is no function any more.
    signal.signal(signal.SIGCHLD, _ignore)


def _ignore(number: int, frame: Any) -> None:
    pass


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked and _listening


def all_asked(step: int) -> bool:
    """Whether training must stop before this step, the same on every process: one that was asked is enough."""
    if get_world_size() == 1 or not _listening:
        return asked()
    if step % _EVERY:
        return False
    anyone = torch.tensor(float(asked()))
    all_reduce(anyone, 'max')
    return bool(anyone)


def fewest(steps: int) -> int:
    """The smallest number of steps of any process: up to there all can agree (:func:`all_asked`)."""
    if get_world_size() == 1:
        return steps
    found = torch.tensor(steps)
    all_reduce(found, 'min')
    return int(found)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C until the end: while a file is written, libraries may swallow it."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def interrupted_again() -> Iterator[None]:
    """Within this context a Ctrl-C that Python swallows comes again: one that meets a destructor is only printed."""
    former = sys.unraisablehook

    def swallowed(error: Any) -> None:
        if issubclass(error.exc_type, KeyboardInterrupt):
            # Not now, when it would be swallowed as well.
            threading.Timer(_SOON, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            former(error)

    sys.unraisablehook = swallowed
    try:
        yield
    finally:
        sys.unraisablehook = former

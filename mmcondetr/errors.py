"""User-fixable errors: the command line prints their message alone, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Invalid input. The message names the file and the field, the given value and the allowed ones.

    A data loader worker sends an error to the training process as text that starts with a traceback; only the original
    message is kept here.
    """

    def __init__(self, message: str = '') -> None:
        raised_as = f'{type(self).__module__}.{type(self).__qualname__}: '
        if message.startswith('Caught ') and raised_as in message:
            message = message.rpartition(raised_as)[2].strip()
        super().__init__(message)


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; the message names the images of the batch, the decoder layer and the loss term.

    Raised inside the detector's ``loss``, before ``backward``: weights and optimizer are still those of the last good
    step, and no checkpoint is written afterwards, so the latest one on disk is valid.
    """


class Stopped(Exception):
    """Training was asked to stop (SIGTERM) and has saved its state; the message names the checkpoint."""


def missing(package: str) -> str:
    """What to do where a package that training and testing need is not installed."""
    return (
        f"'{package}' is not installed: install mmcondetr with the extra [lite], [full] or [onedl]. Files written by "
        '`mmcondetr export` run without them: mmcondetr.runtime.Detector.'
    )

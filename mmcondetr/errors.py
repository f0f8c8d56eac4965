"""Errors that the user can mend: the command lines print their message alone, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What was given cannot work; the message names the file and the field, what was given and what is allowed.

    A data loader's worker sends an error to the training process as text with a traceback in front; here it becomes
    the original message again.
    """

    def __init__(self, message: str = '') -> None:
        raised_as = f'{type(self).__module__}.{type(self).__qualname__}: '
        if message.startswith('Caught ') and raised_as in message:
            message = message.rpartition(raised_as)[2].strip()
        super().__init__(message)


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; the message names the images of the batch, the decoder layer and the loss term.

    Raised inside the detector's ``loss``, before ``backward``: weights and optimizer are as the last step left them,
    and no checkpoint is written after it, so the last one on disk is good.
    """


class Stopped(Exception):
    """Training was asked to stop (SIGTERM) and has saved where it is; the message names the checkpoint."""

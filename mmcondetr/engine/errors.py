"""Errors that the user can mend: the command lines print their message alone, without a traceback."""


class UserError(Exception):
    """What was given cannot work; the message names the file and the field, what was given and what is allowed."""


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; the message names the images of the batch, the decoder layer and the loss term.

    Raised inside the detector's ``loss``, before ``backward``: weights and optimizer are as the last step left them,
    and no checkpoint is written after it, so the last one on disk is good.
    """

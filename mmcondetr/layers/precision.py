"""Full precision inside mixed-precision training (references, boxes, matching, losses), and a check for NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mmcondetr.errors import NonFiniteLossError


def full_precision(like: Tensor) -> AbstractContextManager:
    """Disable autocast on the device of ``like``: results keep the dtype of their inputs."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def check_finite(losses: Mapping[str, Tensor], images: Sequence[str]) -> None:
    """Raise NonFiniteLossError, naming images, layer and term, unless all losses are finite. Synchronises once.

    Args:
        losses: name -> (L, B), what each image adds to the loss of each layer.
        images: names of the B images.
    """
    table = torch.stack(list(losses.values())).detach()  # (terms, L, B)
    if table.isfinite().all():
        return
    bad = ~table.isfinite()
    term, layer, image = bad.nonzero()[0].tolist()
    affected = ', '.join(images[index] for index in bad[term, layer].nonzero().flatten().tolist())
    raise NonFiniteLossError(
        f'non-finite loss: {list(losses)[term]} of decoder layer {layer} is {table[term, layer, image].item()} on '
        f'image {affected}; no weights were updated. Check the image and its boxes, the learning rate and, with '
        '--amp, the precision.'
    )


def image_name(samples: Sequence[Any], image: int) -> str:
    """The file name of an image of the batch, for messages."""
    return samples[image].metainfo.get('img_path', f'number {image} of the batch')

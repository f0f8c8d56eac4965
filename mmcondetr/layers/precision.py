"""Where mixed precision stops (references, boxes, matching, losses), and a look for what is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mmcondetr.errors import NonFiniteLossError


def full_precision(like: Tensor) -> AbstractContextManager:
    """A context without autocast on the device of ``like``; what is computed in it has the precision of its inputs."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)


def check_finite(losses: Mapping[str, Tensor], images: Sequence[str]) -> None:
    """Raise NonFiniteLossError that names images, layer and term, unless all losses are finite. One synchronisation.

    Args:
        losses: by name, (L, B) each: what each image adds to the loss of each layer.
        images: B names.
    """
    table = torch.stack(list(losses.values())).detach()  # (terms, L, B)
    if table.isfinite().all():
        return
    bad = ~table.isfinite()
    term, layer, image = bad.nonzero()[0].tolist()
    spoilt = ', '.join(images[index] for index in bad[term, layer].nonzero().flatten().tolist())
    raise NonFiniteLossError(
        f'non-finite loss: {list(losses)[term]} of decoder layer {layer} is {table[term, layer, image].item()} on '
        f'image {spoilt}; nothing was updated. Look at the image and its boxes, the learning rate and, under --amp, '
        'the precision.'
    )


def image_name(samples: Sequence[Any], image: int) -> str:
    """The file of one image of the batch, for messages."""
    return samples[image].metainfo.get('img_path', f'number {image} of the batch')

"""Object queries of a trained model that are never trained: is learning them what makes DETR slow?"""

from __future__ import annotations

import torch
from mmengine.runner import CheckpointLoader
from torch import nn

from mmcondetr.errors import UserError
from mmcondetr.models.training.queries import ObjectQueries
from mmcondetr.registry import MODELS

_NAME = 'query_embedding.weight'


@MODELS.register_module()
class FrozenQueries(ObjectQueries):
    """The object queries of a checkpoint, kept as they are while everything else is trained.

    DAB-DETR's authors gave DETR the queries of a trained DETR and froze them: the loss falls little faster in the first
    epochs and not at all later, so that queries which are yet to be learned are not what DETR waits for.

    Args:
        checkpoint: a model of ours with as many queries, of the same width.

    Raises:
        UserError: the checkpoint has no such queries.

    Paper: arXiv 2201.12329, §3 (Figure 3a).
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def attach(self, detector: nn.Module) -> None:
        """Put the checkpoint's queries into the detector, and leave them out of training."""
        found = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu')
        given, own = found.get('state_dict', found).get(_NAME), detector.query_embedding.weight
        if given is None or given.shape != own.shape:
            has = 'is missing' if given is None else f'has shape {tuple(given.shape)}'
            raise UserError(
                f"training_queries.checkpoint: '{self.checkpoint}': '{_NAME}' {has}, and the model's has shape "
                f'{tuple(own.shape)}.'
            )
        own.requires_grad_(False)
        with torch.no_grad():
            own.copy_(given)

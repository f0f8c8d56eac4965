"""Object queries of a trained model, kept frozen: is learning them what makes DETR converge slowly?"""

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
    """Takes the object queries from a checkpoint and freezes them while everything else is trained.

    DAB-DETR's authors gave DETR the queries of a trained DETR and froze them. The loss fell slightly faster in the
    first epochs and no faster later, so learning the queries is not what slows DETR down.

    Args:
        checkpoint: one of our models with the same number and width of queries.

    Raises:
        UserError: the checkpoint has no such queries.

    Paper: arXiv 2201.12329, §3 (Figure 3a).
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def attach(self, detector: nn.Module) -> None:
        """Copy the checkpoint's queries into the detector and exclude them from training."""
        found = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu')
        given, own = found.get('state_dict', found).get(_NAME), detector.query_embedding.weight
        if given is None or given.shape != own.shape:
            has = 'is missing' if given is None else f'has shape {tuple(given.shape)}'
            raise UserError(
                f"model.training_queries.checkpoint: '{self.checkpoint}': '{_NAME}' {has}, and the model's has shape "
                f'{tuple(own.shape)}.'
            )
        own.requires_grad_(False)
        with torch.no_grad():
            own.copy_(given)

"""The decoder's queries in training: by default the object queries, as in inference."""

from __future__ import annotations

from mmdet.structures import SampleList
from torch import Tensor, nn

from mmcondetr.models.decoder import Queries
from mmcondetr.registry import MODELS


@MODELS.register_module()
class ObjectQueries(nn.Module):
    """The object queries themselves, matched once: plain training."""

    def attach(self, detector: nn.Module) -> None:
        """Called once with the detector, after all of its other parts are built."""

    def forward(self, object_query: Tensor, samples: SampleList) -> Queries:
        """The queries of one step, from object_query (1, N, D or 4) and the batch's ground truth."""
        return Queries(object_query)

    def loss(
        self, head: nn.Module, hidden_states: Tensor, references: Tensor, samples: SampleList
    ) -> dict[str, Tensor]:
        """The losses of their predictions, from hidden states (L, B, M, D) and references (L, B, M, 2 or 4)."""
        return head.loss(hidden_states, references, samples)

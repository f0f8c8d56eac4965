"""What the decoder is asked in training: by default the object queries, each batch as inference asks them."""

from __future__ import annotations

from typing import NamedTuple

from mmdet.structures import SampleList
from torch import Tensor, nn

from mmcondetr.models.attention import Among
from mmcondetr.registry import MODELS


class Queries(NamedTuple):
    """What the decoder is asked.

    Attributes:
        object_query: (B or 1, M, D), or (B or 1, M, 4) anchor boxes; the M queries of a training step.
        among: which see which in self-attention; None where all see all.
        content: (B, M, D), what they hold before the first layer; None where the reference point module says.
    """

    object_query: Tensor
    among: Among | None = None
    content: Tensor | None = None


@MODELS.register_module()
class ObjectQueries(nn.Module):
    """The object queries themselves, matched once: training as it is without this package of parts."""

    def attach(self, detector: nn.Module) -> None:
        """Called once, with the detector, when all of its other parts are built."""

    def forward(self, object_query: Tensor, samples: SampleList) -> Queries:
        """What is asked in one step: object_query (1, N, D or 4) and the batch's ground truth -> the queries."""
        return Queries(object_query)

    def loss(
        self, head: nn.Module, hidden_states: Tensor, references: Tensor, samples: SampleList
    ) -> dict[str, Tensor]:
        """The losses of what came of it: hidden states (L, B, M, D), references (L, B, M, 2 or 4); see the head."""
        return head.loss(hidden_states, references, samples)

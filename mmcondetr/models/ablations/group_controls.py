"""The controls of Group DETR's Table 7: other ways to assign several queries to a ground truth, which lower AP."""

from __future__ import annotations

from copy import copy

from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmcondetr.models.decoder import Queries
from mmcondetr.models.training.groups import QueryGroups
from mmcondetr.models.training.queries import ObjectQueries, check_count
from mmcondetr.registry import MODELS


@MODELS.register_module()
class MixedQueryGroups(QueryGroups):
    """K groups that are matched separately but see each other in self-attention.

    Args:
        num_groups: K.

    Paper: arXiv 2207.13085, Table 7 (34.8 AP after 12 epochs instead of 37.6, the paper's).
    """

    def forward(self, object_query: Tensor, samples: SampleList) -> Queries:
        """All groups concatenated, without restricting self-attention: (1, N, D or 4) -> (1, K N, D or 4)."""
        return super().forward(object_query, samples)._replace(among=None)


@MODELS.register_module()
class OneToMany(ObjectQueries):
    """One set of object queries in which every ground truth is matched K times.

    The paper does not specify the assignment; here the Hungarian matching gets each ground truth K times.

    Args:
        num_copies: K.

    Raises:
        ValueError: num_copies is no whole number or less than 1.

    Paper: arXiv 2207.13085, Table 7 (8.4 AP after 12 epochs, the paper's: inference gives duplicates).
    """

    def __init__(self, num_copies: int) -> None:
        super().__init__()
        check_count(self, 'num_copies', num_copies)
        self.num_copies = num_copies

    def loss(
        self, head: nn.Module, hidden_states: Tensor, references: Tensor, samples: SampleList
    ) -> dict[str, Tensor]:
        """The loss with K copies of the ground truth, divided by the number of all copies."""
        return head.loss(hidden_states, references, [self._repeat(sample) for sample in samples], self.num_copies)

    def _repeat(self, sample):
        repeated = copy(sample)  # the copy's instances are replaced, the original's stay unchanged
        repeated.gt_instances = InstanceData.cat([sample.gt_instances] * self.num_copies)
        return repeated

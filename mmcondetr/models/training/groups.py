"""Group DETR: K groups of object queries in training, one in inference (Chen et al., ICCV 2023, arXiv 2207.13085).

Each group is a set of N object queries that is matched one-to-one with all of the ground truth; everything else is
shared. The decoder thus learns K times from an image that the backbone and the encoder process once. A query sees its
own group only: otherwise groups would suppress each other's duplicates, while inference has a single group.
"""

from __future__ import annotations

from functools import partial

from mmdet.structures import SampleList
from torch import Tensor, cat, nn

from mmcondetr.errors import UserError
from mmcondetr.models.attention import DotProductAttention, SelfAttention
from mmcondetr.models.decoder import Queries
from mmcondetr.models.training.queries import ObjectQueries, check_count
from mmcondetr.registry import MODELS


def attend_within_groups(attention: DotProductAttention, q: Tensor, k: Tensor, v: Tensor, num_groups: int) -> Tensor:
    """Self-attention within each of K groups, folded into the batch: (B, K N, D) -> (B, K N, D)."""
    q, k, v = (fold(x, num_groups, 1) for x in (q, k, v))  # (B K, N, D)
    return attention((q,), (k,), v).unflatten(0, (-1, num_groups)).flatten(1, 2)


def fold(x: Tensor, num_groups: int, dim: int) -> Tensor:
    """Move groups from the queries, dimension ``dim``, into the batch: (.., B, K N, ..) -> (.., B K, N, ..)."""
    return x.unflatten(dim, (num_groups, -1)).flatten(dim - 1, dim)


@MODELS.register_module()
class QueryGroups(ObjectQueries):
    """K groups of object queries, matched separately; the loss is the mean over the groups.

    Group 0 is the detector's own ``query_embedding``, the only one used in inference. The others are parameters of this
    module; checkpoints without them can be loaded (checkpoints/query_groups.py).

    The loss is divided by K max(1, boxes), boxes averaged over ranks, so K equal groups have the loss of one for any
    batch. (The authors divide by max(1, K boxes), which is the same if there is a box per rank. Otherwise theirs is the
    sum over groups, and a batch of empty images weighs K times what it does in plain training.)

    Args:
        num_groups: K; the authors use 11. 1 is plain training.

    Raises:
        ValueError: num_groups is no whole number or less than 1.
        UserError: the decoder's self-attention cannot be split into groups.

    Paper: arXiv 2207.13085, §3.
    """

    def __init__(self, num_groups: int) -> None:
        super().__init__()
        check_count(self, 'num_groups', num_groups)
        self.num_groups = num_groups
        self.others = nn.ModuleList()

    def attach(self, detector: nn.Module) -> None:
        """Create the other groups as the decoder's reference point module creates the first, each at random."""
        check_divisible(detector.decoder, type(self).__name__)
        make, num_queries = detector.decoder.reference_point.query_embedding, detector.query_embedding.num_embeddings
        self.others.extend(make(num_queries) for _ in range(self.num_groups - 1))

    def forward(self, object_query: Tensor, samples: SampleList) -> Queries:
        """All groups concatenated: (1, N, D or 4) -> (1, K N, D or 4)."""
        if self.num_groups == 1:
            return Queries(object_query)
        every = cat([object_query, *(group.weight[None] for group in self.others)], dim=1)
        return Queries(every, partial(attend_within_groups, num_groups=self.num_groups))

    def loss(
        self, head: nn.Module, hidden_states: Tensor, references: Tensor, samples: SampleList
    ) -> dict[str, Tensor]:
        """The mean over groups: the head treats each group of an image as a separate image."""
        hidden_states, references = (fold(x, self.num_groups, 2) for x in (hidden_states, references))
        every = [sample for sample in samples for _ in range(self.num_groups)]
        return head.loss(hidden_states, references, every, copies=self.num_groups)


def check_divisible(decoder: nn.Module, name: str) -> None:
    """Raise UserError, naming the calling part, unless this decoder can separate sets of queries."""
    unfit = {type(layer).__name__ for layer in decoder.layers if type(layer.self_attn) is not SelfAttention}
    if unfit:
        raise UserError(
            f"model.training_queries: {name} splits the decoder's self-attention into groups, which that of "
            f'{", ".join(sorted(unfit))} cannot be: model.decoder must be that of Conditional DETR or DAB-DETR '
            "(layer=dict(type='mmcondetr.ConditionalDecoderLayer'))."
        )
    if hasattr(decoder.reference_point, 'patterns'):
        kind = type(decoder.reference_point).__name__
        raise UserError(
            f'model.training_queries: {name} cannot be combined with model.decoder.reference_point {kind}, whose '
            'queries go pattern by pattern.'
        )

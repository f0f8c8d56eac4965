"""The decoder's queries in training: by default the object queries, as in inference."""

from __future__ import annotations

from collections.abc import Mapping

from mmdet.structures import SampleList
from torch import Tensor, nn

from mmcondetr.errors import UserError
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


def build_training_queries(config: Mapping | None, path: str = 'model.training_queries') -> nn.Module:
    """The part that a config describes; ObjectQueries for None.

    Raises:
        UserError: the config, found at ``path``, is no dict with a type, lacks an argument, or describes another part.
    """
    if config is None:
        return ObjectQueries()
    if not isinstance(config, Mapping) or 'type' not in config:
        raise UserError(f"{path}: must be None or a dict with a type, such as 'mmcondetr.QueryGroups', not {config!r}.")
    try:
        part = MODELS.build(config)
    except TypeError as error:
        raise UserError(f'{path}: {error}') from error
    if not all(callable(getattr(part, method, None)) for method in ('attach', 'forward', 'loss')):
        raise UserError(
            f"{path}.type: {type(part).__name__} provides no queries for training, as 'mmcondetr.QueryGroups' does."
        )
    return part


def check_count(part: nn.Module, name: str, count: int) -> None:
    """Raise ValueError, naming the part and its argument, unless ``count`` is an int, 1 or more."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f'{type(part).__name__}: {name} must be a whole number, 1 or more, got {count!r}')

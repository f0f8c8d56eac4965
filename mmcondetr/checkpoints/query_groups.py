"""Groups of object queries (Group DETR): fitting a checkpoint's groups to the model's.

Group 0 has the name of a plain model's object queries, so that a checkpoint without the other groups is a plain one.
The authors store all groups in one tensor, one after another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

OBJECT_QUERIES = 'query_embedding.weight'
OTHERS = re.compile(r'training_queries\.(matching\.)?others\.')  # denoising has the groups as its matching queries
NOISE = 0.2
"""Standard deviation, relative to that of the loaded queries, of the noise added to copies for missing groups."""


def fit_groups(
    tensors: Mapping[str, Tensor], model_state: Mapping[str, Tensor], num_groups: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with as many groups as the model has.

    Groups missing from the checkpoint are initialised from its group 0 plus noise: the copies suit the trained decoder
    at once, and the noise lets them diverge. Identical copies would learn nothing new.

    Args:
        tensors: under our names.
        model_state: the model's tensors.
        num_groups: the number of groups that the file states; None if it does not.

    Returns:
        The tensors, and log messages.
    """
    result, notes = dict(tensors), []
    if OBJECT_QUERIES not in result or OBJECT_QUERIES not in model_state:
        return result, notes
    names = [name for name in model_state if OTHERS.match(name)]
    prefix = OTHERS.match(names[0])[0] if names else 'training_queries.others.'
    result = {OTHERS.sub(prefix, name): value for name, value in result.items()}
    _split(result, len(model_state[OBJECT_QUERIES]), num_groups, 1 + len(names), prefix)
    dropped = [name for name in result if OTHERS.match(name) and name not in names]
    absent = [name for name in names if name not in result]
    result = {name: value for name, value in result.items() if name not in dropped}
    if dropped:
        notes.append(f'{_groups(dropped)} of object queries unused')
    queries = result[OBJECT_QUERIES]
    if absent and queries.shape == model_state[OBJECT_QUERIES].shape:
        generator = torch.Generator().manual_seed(0)  # independent of the run's seed and of resuming
        spread = queries.float().cpu().std(dim=0) * NOISE
        for name in absent:
            noise = torch.randn(queries.shape, generator=generator) * spread
            result[name] = queries + noise.to(queries)
        notes.append(f'{_groups(absent)} of object queries initialised from group 0 with noise')
    return result, notes


def _groups(names: list[str]) -> str:
    return f'{len(names)} group{"s" if len(names) > 1 else ""}'


def without_groups(tensors: Mapping[str, Tensor], num_groups: int | None) -> dict[str, Tensor]:
    """Tensors under our names with group 0 alone, which is all that inference needs."""
    result = {name: value for name, value in tensors.items() if not name.startswith('training_queries.')}
    if num_groups and OBJECT_QUERIES in result:
        result[OBJECT_QUERIES] = result[OBJECT_QUERIES][: len(result[OBJECT_QUERIES]) // num_groups].clone()
    return result


def _split(
    tensors: dict[str, Tensor], num_queries: int, num_groups: int | None, model_groups: int, prefix: str
) -> None:
    """Split the authors' tensor if it has the rows of all groups that the file or the model has."""
    queries = tensors[OBJECT_QUERIES]
    if len(queries) <= num_queries or len(queries) not in (num_queries * (num_groups or 1), num_queries * model_groups):
        return
    tensors[OBJECT_QUERIES], *others = (group.clone() for group in queries.split(num_queries))
    tensors.update({f'{prefix}{index}.weight': group for index, group in enumerate(others)})

"""Object queries in groups (Group DETR): what a checkpoint holds of them, and what the model wants.

Our name of group 0 is that of a plain model's object queries, so that everything but the other groups is a plain
checkpoint. The authors keep all groups one after another in one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

OBJECT_QUERIES = 'query_embedding.weight'
OTHERS = 'training_queries.others.'
NOISE = 0.2
"""Standard deviation, in that of the loaded queries, of what is added to the copies that absent groups start from."""


def fit_groups(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], said: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with as many groups as the model has.

    Groups that the checkpoint does not have start from its group 0 with noise: copies of trained queries that fit the
    trained decoder at once, yet each goes its own way. Equal copies would learn nothing new.

    Args:
        tensors: under our names.
        wanted: the model's.
        said: how many groups the file says that it has; None where it does not.

    Returns:
        The tensors, and what was done, in words.
    """
    result, done = dict(tensors), []
    if OBJECT_QUERIES not in result or OBJECT_QUERIES not in wanted:
        return result, done
    names = [name for name in wanted if name.startswith(OTHERS)]
    _split(result, len(wanted[OBJECT_QUERIES]), said, 1 + len(names))
    dropped = [name for name in result if name.startswith(OTHERS) and name not in names]
    absent = [name for name in names if name not in result]
    result = {name: value for name, value in result.items() if name not in dropped}
    if dropped:
        done.append(f'{len(dropped)} of its groups of object queries not used')
    queries = result[OBJECT_QUERIES]
    if absent and queries.shape == wanted[OBJECT_QUERIES].shape:
        generator = torch.Generator().manual_seed(0)  # resuming and the run's seed are nobody's business here
        spread = queries.float().cpu().std(dim=0) * NOISE
        for name in absent:
            noise = torch.randn(queries.shape, generator=generator) * spread
            result[name] = queries + noise.to(queries)
        done.append(f'{len(absent)} groups of object queries start from group 0 with noise')
    return result, done


def without_groups(tensors: Mapping[str, Tensor], said: int | None) -> dict[str, Tensor]:
    """What inference needs: tensors under our names with group 0 alone."""
    result = {name: value for name, value in tensors.items() if not name.startswith('training_queries.')}
    if said and OBJECT_QUERIES in result:
        result[OBJECT_QUERIES] = result[OBJECT_QUERIES][: len(result[OBJECT_QUERIES]) // said].clone()
    return result


def _split(tensors: dict[str, Tensor], num_queries: int, said: int | None, wanted: int) -> None:
    """Take the authors' one tensor apart where its rows are those of the groups that the file or the model has."""
    queries = tensors[OBJECT_QUERIES]
    if len(queries) <= num_queries or len(queries) not in (num_queries * (said or 1), num_queries * wanted):
        return
    tensors[OBJECT_QUERIES], *others = (group.clone() for group in queries.split(num_queries))
    tensors.update({f'{OTHERS}{index}.weight': group for index, group in enumerate(others)})

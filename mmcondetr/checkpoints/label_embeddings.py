"""DN-DETR's embeddings of the classes and of 'unknown': what a checkpoint holds of them, and what the model wants.

Inference needs that of 'unknown' alone, so that it is a tensor of its own here; the others belong to training. The
authors keep all in one tensor, 'unknown' last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

LABELS = 'training_queries.label_embedding.weight'
UNKNOWN = 'decoder.reference_point.unknown.weight'


def split_labels(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, under our names, with the authors' one tensor taken apart."""
    result = dict(tensors)
    if LABELS in result and UNKNOWN not in result:
        every = result[LABELS]
        result[LABELS], result[UNKNOWN] = every[:-1].clone(), every[-1:].clone()
    return result


def fit_labels(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], rows: Sequence[int | None]
) -> dict[str, Tensor]:
    """The tensors with embeddings of the model's classes; what the checkpoint does not have is left as initialised.

    A plain DAB-DETR starts with 'unknown' at zero: that is what its queries hold, so that nothing changes.

    Args:
        tensors: under our names.
        wanted: the model's.
        rows: for each class of the model the row of the checkpoint's, or None.
    """
    result = {name: value for name, value in tensors.items() if name != LABELS or name in wanted}
    if UNKNOWN in wanted and UNKNOWN not in result:
        result[UNKNOWN] = wanted[UNKNOWN].detach().new_zeros(wanted[UNKNOWN].shape)
    if LABELS in wanted:
        embeddings = wanted[LABELS].detach().clone()
        given = result.get(LABELS, embeddings[:0])
        if given.shape[1:] != embeddings.shape[1:]:
            return result  # of another width: the check of shapes says so
        for index, row in enumerate(rows[: len(embeddings)]):
            if row is not None and row < len(given):
                embeddings[index] = given[row].to(embeddings)
        result[LABELS] = embeddings
    return result

"""Denoising's embeddings of the classes and of 'unknown': fitting a checkpoint's to the model's.

Inference needs the 'unknown' embedding only, so it is a separate tensor here; the others are used in training only.
DN-DETR's authors store all of them in one tensor, 'unknown' last. Denoising for points has no 'unknown', and embeds the
boxes, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

LABELS = 'training_queries.label_embedding.weight'
BOXES = 'training_queries.box_embedding.'
UNKNOWN = 'decoder.reference_point.unknown.weight'


def split_labels(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, under our names, with the authors' single tensor split."""
    result = dict(tensors)
    if LABELS in result and UNKNOWN not in result and not any(name.startswith(BOXES) for name in result):
        every = result[LABELS]
        result[LABELS], result[UNKNOWN] = every[:-1].clone(), every[-1:].clone()
    return result


def fit_labels(
    tensors: Mapping[str, Tensor], model_state: Mapping[str, Tensor], rows: Sequence[int | None]
) -> dict[str, Tensor]:
    """The tensors with embeddings of the model's classes; missing ones are left as initialised.

    From a plain DAB-DETR, whose queries have zero content, 'unknown' starts at zero, so that its outputs do not change.

    Args:
        tensors: under our names.
        model_state: the model's tensors.
        rows: for each class of the model, the row in the checkpoint, or None.
    """
    result = {
        name: value for name, value in tensors.items() if not name.startswith((LABELS, BOXES)) or name in model_state
    }
    result.update({name: value for name, value in model_state.items() if name.startswith(BOXES) and name not in result})
    if UNKNOWN in model_state and UNKNOWN not in result:
        result[UNKNOWN] = model_state[UNKNOWN].detach().new_zeros(model_state[UNKNOWN].shape)
    if LABELS in model_state:
        embeddings = model_state[LABELS].detach().clone()
        given = result.get(LABELS, embeddings[:0])
        if given.shape[1:] != embeddings.shape[1:]:
            return result  # of another width: reported by the shape check
        for index, row in enumerate(rows[: len(embeddings)]):
            if row is not None and row < len(given):
                embeddings[index] = given[row].to(embeddings)
        result[LABELS] = embeddings
    return result

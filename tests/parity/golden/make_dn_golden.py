"""Write DN-DETR's golden outputs: run its authors' code on the weights of ``tests/parity/dab_weights.py``, in training.

    python tests/parity/golden/make_dn_golden.py PATH_TO_A_CLONE_OF_DN-DETR

Needs torch and torchvision, as make_golden.py does. Noise is drawn by the rule of weights.py and kept with the outputs.
"""

from __future__ import annotations

import argparse
import sys

import make_dab_golden
import numpy as np
import torch
from authors_code import add_to_path
from make_golden import HERE, LAST_QUERIES, LOGIT_QUERIES

sys.path.insert(0, str(HERE.parent))
import dab_weights  # noqa: E402
import weights  # noqa: E402

NUM_QUERIES = 60
NUM_GROUPS = 3
OBJECTS = {'even': (5, 5), 'uneven': (7, 4), 'none': (0, 0)}
TERMS = ('loss_ce', 'loss_bbox', 'loss_giou')


def stay_on_the_cpu() -> None:
    """Keep tensors on the CPU: the authors' code moves them to a GPU by name."""
    move = torch.Tensor.to
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.Tensor.to = lambda self, *where, **k: move(self, *('cpu' if x == 'cuda' else x for x in where), **k)


class Noise:
    """Replaces torch's generators in the authors' code, and records the numbers that it returns."""

    def __init__(self, case: str) -> None:
        self.case, self.drawn = case, {}

    def rand_like(self, like: torch.Tensor) -> torch.Tensor:
        name = 'boxes' if like.dim() == 2 else 'flip'
        self.drawn[name] = weights.uniform(f'{self.case}.{name}', tuple(like.shape), 0, 1)
        return torch.from_numpy(self.drawn[name]).to(like.dtype)

    def randint_like(self, like: torch.Tensor, low: int, high: int) -> torch.Tensor:
        self.drawn['label'] = weights.uniform(f'{self.case}.label', tuple(like.shape), low, high).astype(np.int64)
        return torch.from_numpy(self.drawn['label'])


def run(model, criterion, case: str, images: torch.Tensor, mask: torch.Tensor, targets: list) -> dict:
    """The model's outputs and losses in training mode, and every gradient."""
    from util.misc import NestedTensor

    noise = Noise(case)
    real = torch.rand_like, torch.randint_like
    torch.rand_like, torch.randint_like = noise.rand_like, noise.randint_like
    try:
        outputs, state = model(NestedTensor(images, mask), dn_args=(targets, NUM_GROUPS, 0.2, 0.4, 0))
    finally:
        torch.rand_like, torch.randint_like = real
    if not state['pad_size']:  # otherwise their own loss would use outputs that do not exist
        state.pop('output_known_lbs_bboxes', None)
    losses = criterion(outputs, targets, state)
    every = [*outputs['aux_outputs'], outputs]
    suffixes = [f'_{layer}' for layer in range(len(every) - 1)] + ['']

    def table(prefix: str) -> torch.Tensor:
        return torch.stack(
            [
                torch.stack([losses[prefix + t + s] * criterion.weight_dict[prefix + t + s] for t in TERMS])
                for s in suffixes
            ]
        )

    model.zero_grad()
    (table('').sum() + table('tgt_').sum()).backward()
    logits = torch.stack([item['pred_logits'] for item in every]).detach()
    boxes = torch.stack([item['pred_boxes'] for item in every]).detach()
    noised_logits, noised_boxes = state.get('output_known_lbs_bboxes', (logits[:, :, :0], boxes[:, :, :0]))
    return dict(
        logits=logits,
        boxes=boxes,
        noised_logits=noised_logits.detach(),
        noised_boxes=noised_boxes.detach(),
        terms=table('').detach(),
        noised_terms=table('tgt_').detach(),
        gradients={name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        **{f'noise.{name}': values for name, values in noise.drawn.items()},
    )


def alone(model, criterion, pixels: torch.Tensor, mask: torch.Tensor, targets: list) -> dict[str, np.ndarray]:
    """Each image on its own, without empty slots due to other images; sizes as in the batch."""
    kept = {}
    for index, target in enumerate(targets):
        here = slice(index, index + 1)
        each = run(model, criterion, f'alone{index}', pixels[here], mask[here], [target])
        for key in ('noised_logits', 'noised_boxes'):
            kept[f'{key}.{index}'] = each[key][:, 0].numpy()
        kept.update({f'{key}.{index}': each[key] for key in ('noise.boxes', 'noise.flip', 'noise.label')})
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('authors', help="a clone of the authors' repository")
    args = parser.parse_args()
    add_to_path(args.authors)
    stay_on_the_cpu()
    from models.DN_DAB_DETR.DABDETR import build_DABDETR

    options = dict(num_queries=NUM_QUERIES, use_dn=True, batch_norm_type='FrozenBatchNorm2d', modelname='dn_dab_detr')
    model, criterion = make_dab_golden.build(False, 0, build_DABDETR, **options)
    shapes = dab_weights.denoising_shapes(NUM_QUERIES)
    model.load_state_dict({name: torch.from_numpy(dab_weights.tensor(name, shape)) for name, shape in shapes.items()})
    model.train(), criterion.train()
    pixels, mask = (torch.from_numpy(item) for item in weights.batch())
    for case, counts in OBJECTS.items():
        made = weights.targets(case, 91, counts)
        targets = [{key: torch.from_numpy(value) for key, value in item.items()} for item in made]
        result = run(model, criterion, case, pixels, mask, targets)
        result = {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in result.items()}
        gradients = result.pop('gradients')
        print(f'{case}: spread of logits {result["logits"][-1].std(axis=1).mean():.3f}')
        print(result['terms'].sum(0), result['noised_terms'].sum(0))
        result['last_logits'] = result['logits'][-1, :, LAST_QUERIES]
        result['logits'] = result['logits'][:, :, LOGIT_QUERIES]
        if case == 'uneven':
            result.update(alone(model, criterion, pixels, mask, targets))
        if case == 'even':
            result.update({f'gradient.{n}': weights.digest(f'gradient.{n}', g.numpy()) for n, g in gradients.items()})
        np.savez_compressed(HERE / f'dn_authors_{case}.npz', **result)


if __name__ == '__main__':
    main()

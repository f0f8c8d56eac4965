"""Write Group DETR's golden outputs: run its authors' code on the weights of ``tests/parity/weights.py``, in training.

    python tests/parity/golden/make_group_golden.py PATH_TO_A_CLONE_OF_CONDITIONALDETR

The clone is of the branch GroupDETR. Needs torch and torchvision, as make_golden.py does. In evaluation the
model is the plain one: groups that see each other by mistake show only in training, in outputs and gradients.
"""

from __future__ import annotations

import argparse
import sys

import make_golden
import numpy as np
import torch
from authors_code import add_to_path
from make_golden import HERE, LAST_QUERIES, LOGIT_QUERIES

sys.path.insert(0, str(HERE.parent))
import weights  # noqa: E402

NUM_QUERIES = 60  # of a group
NUM_GROUPS = 3
OBJECTS = (7, 4)  # of the two images
TERMS = ('loss_ce', 'loss_bbox', 'loss_giou')


def run(model, criterion, pixels: torch.Tensor, mask: torch.Tensor, targets: list) -> dict[str, torch.Tensor]:
    """Class logits, boxes and weighted loss terms (L, 3) of all queries, and every gradient, in training mode."""
    from util.misc import NestedTensor

    outputs = model(NestedTensor(pixels, mask))
    losses = criterion(outputs, targets)
    every = [*outputs['aux_outputs'], outputs]
    suffixes = [f'_{layer}' for layer in range(len(every) - 1)] + ['']
    terms = torch.stack([torch.stack([losses[t + s] * criterion.weight_dict[t + s] for t in TERMS]) for s in suffixes])
    model.zero_grad()
    terms.sum().backward()
    return dict(
        logits=torch.stack([item['pred_logits'] for item in every]).detach(),
        boxes=torch.stack([item['pred_boxes'] for item in every]).detach(),
        terms=terms.detach(),
        **{f'gradient.{name}': p.grad for name, p in model.named_parameters() if p.grad is not None},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('authors', help="a clone of the authors' repository, branch GroupDETR")
    args = parser.parse_args()
    add_to_path(args.authors)

    model, criterion = make_golden.build('resnet50', False, num_queries=NUM_QUERIES, group_detr=NUM_GROUPS, dropout=0.0)
    shapes = weights.authors_shapes(50, num_queries=NUM_QUERIES * NUM_GROUPS)
    model.load_state_dict({name: torch.from_numpy(weights.tensor(name, shape)) for name, shape in shapes.items()})
    model.train(), criterion.train()
    pixels, mask = (torch.from_numpy(item) for item in weights.batch())
    made = weights.targets('model', 91, OBJECTS)
    targets = [{key: torch.from_numpy(value) for key, value in item.items()} for item in made]
    single = run(model, criterion, pixels, mask, targets)
    torch.set_default_dtype(torch.float64)
    doubles = [dict(item, boxes=item['boxes'].double()) for item in targets]
    double = run(model.double(), criterion, pixels.double(), mask, doubles)
    apart = {key: (single[key] - double[key]).abs().max().item() for key in ('logits', 'boxes', 'terms')}
    gradients = sorted(key for key in double if key.startswith('gradient.'))
    worst = max(((single[key] - double[key]).norm() / (double[key].norm() + 1e-6)).item() for key in gradients)
    print(
        f'spread of logits {single["logits"][-1].std(dim=1).mean():.3f}; float32 against float64: {apart}; {worst:.1e}'
    )
    np.savez_compressed(
        HERE / 'authors_groups.npz',
        logits=single['logits'][:, :, LOGIT_QUERIES].numpy(),
        boxes=single['boxes'].numpy(),
        last_logits=single['logits'][-1, :, LAST_QUERIES].numpy(),
        terms=double['terms'].numpy(),
        **{key: weights.digest(key, double[key].numpy()) for key in gradients},
    )


if __name__ == '__main__':
    main()

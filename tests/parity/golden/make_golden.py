"""Write the golden outputs: run the authors' code on the weights and images of ``tests/parity/weights.py``.

    python tests/parity/golden/make_golden.py PATH_TO_A_CLONE_OF_CONDITIONALDETR

Needs torch and torchvision. Only this script runs the authors' code; the tests read the small .npz files beside it.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np
import torch
from authors_code import add_to_path, arguments, without_download

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import weights  # noqa: E402

LOGIT_QUERIES = slice(None, None, 10)  # every tenth query in every layer
LAST_QUERIES = slice(None, None, 3)  # every third in the last one
LOSS_CASES = {'plain': (7, 4), 'empty': (0, 5), 'none': (0, 0), 'crowded': (40, 60)}


def build(backbone: str, dilation: bool, **others):
    """The authors' model and criterion with their command line's defaults, except for ``others``."""
    from models.conditional_detr import build as build_authors

    args = arguments(backbone=backbone, dilation=dilation, cls_loss_coef=2, focal_alpha=0.25, set_cost_class=2)
    vars(args).update(others)
    with without_download(backbone):
        model, criterion, _ = build_authors(args)
    return model.eval(), criterion


def loss_terms(criterion, logits: torch.Tensor, boxes: torch.Tensor, targets: list) -> dict[str, np.ndarray]:
    """Weighted loss terms (L, 3) in the order class, L1, GIoU, and each layer's matching (query, target) pairs."""
    layers = [{'pred_logits': a, 'pred_boxes': b} for a, b in zip(logits, boxes)]
    targets = [{key: torch.from_numpy(value) for key, value in item.items()} for item in targets]
    terms, pairs = [], {}
    for index, layer in enumerate(layers):
        losses = criterion(layer, targets)
        terms.append([float(losses[key]) * criterion.weight_dict[key] for key in ('loss_ce', 'loss_bbox', 'loss_giou')])
        for image, (queries, objects) in enumerate(criterion.matcher(layer, targets)):
            pairs[f'match.{index}.{image}'] = np.stack([queries.numpy(), objects.numpy()]).astype(np.int16)
    return {'terms': np.array(terms, dtype=np.float64), **pairs}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('authors', help="a clone of the authors' repository")
    args = parser.parse_args()
    add_to_path(args.authors)
    from util.misc import NestedTensor

    pixels, mask = (torch.from_numpy(item) for item in weights.batch())
    for depth in (50, 101):
        state = {name: torch.from_numpy(value) for name, value in weights.authors_state_dict(depth).items()}
        for dilation in (False, True):
            model, criterion = build(f'resnet{depth}', dilation)
            model.load_state_dict(state)
            outputs = model(NestedTensor(pixels, mask))
            every = [*outputs['aux_outputs'], outputs]
            logits = torch.stack([item['pred_logits'] for item in every])
            boxes = torch.stack([item['pred_boxes'] for item in every])
            double = model.double()(NestedTensor(pixels.double(), mask))
            spread = logits[-1].std(dim=1).mean().item()
            noise = (double['pred_logits'] - logits[-1]).abs().max().item()
            box_noise = (double['pred_boxes'] - boxes[-1]).abs().max().item()
            name = f'r{depth}' + ('-dc5' if dilation else '')
            print(
                f'{name}: spread of logits {spread:.3f}, of boxes {boxes[-1].std(dim=1).mean().item():.3f}; float32 '
                f'against float64: {noise:.1e}, {box_noise:.1e}'
            )
            losses = loss_terms(criterion, logits, boxes, weights.targets('model', 91, (7, 4)))
            np.savez_compressed(
                HERE / f'authors_{name}.npz',
                logits=logits[:, :, LOGIT_QUERIES].numpy(),
                boxes=boxes.numpy(),
                last_logits=logits[-1, :, LAST_QUERIES].numpy(),
                **losses,
            )
    for case, counts in LOSS_CASES.items():
        made = weights.predictions(case, 2, 100, 91)
        losses = loss_terms(
            criterion,
            torch.from_numpy(made['logits']),
            torch.from_numpy(made['boxes']),
            weights.targets(case, 91, counts),
        )
        np.savez_compressed(HERE / f'authors_loss_{case}.npz', **losses)


if __name__ == '__main__':
    main()

"""Write the golden outputs of DETR with masks: run its code on the weights of ``tests/parity/detr_weights.py``.

    python tests/parity/golden/make_detr_masks_golden.py PATH_TO_A_CLONE_OF_DETR

Needs torch and torchvision, as make_golden.py does.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from authors_code import add_to_path, arguments, without_download
from make_golden import HERE

sys.path.insert(0, str(HERE.parent))
import detr_weights  # noqa: E402
import weights  # noqa: E402

OBJECTS = (7, 4)  # of the two images
EVERY_CLASS, EVERY_MASK = slice(None, None, 4), slice(None, None, 20)  # queries that are kept


def build():
    """DETR-R50 with masks and its criterion, with its command line's defaults."""
    from models.detr import build as build_authors

    args = arguments(
        dataset_file='coco_panoptic',
        masks=True,
        num_queries=detr_weights.NUM_QUERIES,
        set_cost_class=1,
        mask_loss_coef=1,
        dice_loss_coef=1,
        eos_coef=0.1,
    )
    with without_download():
        model, criterion, _ = build_authors(args)
    return model.eval(), criterion


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('authors', help="a clone of DETR's repository")
    args = parser.parse_args()
    add_to_path(args.authors)
    from util.misc import NestedTensor

    model, criterion = build()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in detr_weights.state_dict().items()})
    pixels, mask = (torch.from_numpy(item) for item in weights.batch())
    outputs = model(NestedTensor(pixels, mask))
    targets = []
    for size, target in zip(weights.IMAGE_SIZES, weights.targets('masks', detr_weights.NUM_OUTPUTS - 1, OBJECTS)):
        target['masks'] = detr_weights.masks(target['boxes'], size)
        targets.append({name: torch.from_numpy(value) for name, value in target.items()})
    losses = criterion(outputs, targets)
    np.savez_compressed(
        HERE / 'detr_masks.npz',
        logits=outputs['pred_logits'][:, EVERY_CLASS],
        boxes=outputs['pred_boxes'],
        masks=outputs['pred_masks'][:, EVERY_MASK],
        terms=np.array(
            [float(losses[name]) for name in ('loss_ce', 'loss_bbox', 'loss_giou', 'loss_mask', 'loss_dice')]
        ),
        queries=np.concatenate([queries.numpy() for queries, _ in criterion.matcher(outputs, targets)]),
    )
    print('spread of logits', outputs['pred_logits'].std(dim=1).mean().item())
    masks = outputs['pred_masks']
    print('masks: spread over queries', masks.std(dim=1).mean().item(), 'over all', masks.std().item())
    print({name: float(value) for name, value in losses.items() if '_' not in name[-2:]})


if __name__ == '__main__':
    main()

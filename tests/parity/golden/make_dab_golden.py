"""Write DAB-DETR's golden outputs: run its authors' code on the weights of ``tests/parity/dab_weights.py``.

    python tests/parity/golden/make_dab_golden.py PATH_TO_A_CLONE_OF_DAB-DETR

Needs torch and torchvision, as make_golden.py does. The tests read the small .npz files that this writes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import torch
from authors_code import add_to_path, arguments, without_download
from make_golden import HERE, LAST_QUERIES, LOGIT_QUERIES

sys.path.insert(0, str(HERE.parent))
import dab_weights  # noqa: E402
import weights  # noqa: E402

# dilation, patterns
CASES = {'r50': (False, 0), 'r50_3-patterns': (False, 3), 'r50-dc5': (True, 0), 'r50_saturated': (False, 0)}


def build(dilation: bool, num_patterns: int, build_authors: Callable, **others):
    """The authors' model and criterion with their command line's defaults, except for ``others``."""
    args = arguments(
        dropout=0.0,
        pe_temperatureH=20,
        pe_temperatureW=20,
        dilation=dilation,
        transformer_activation='prelu',
        num_patterns=num_patterns,
        random_refpoints_xy=False,
        cls_loss_coef=1,
        focal_alpha=0.25,
        set_cost_class=2,
        num_select=300,
    )
    vars(args).update(others)
    with without_download():
        model, criterion, _ = build_authors(args)
    return model.eval(), criterion


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('authors', help="a clone of the authors' repository")
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    args = parser.parse_args()
    add_to_path(args.authors)
    from models.DAB_DETR import build_DABDETR
    from util.misc import NestedTensor

    pixels, mask = (torch.from_numpy(item) for item in weights.batch())
    for name in args.cases:
        dilation, num_patterns = CASES[name]
        model, _ = build(dilation, num_patterns, build_DABDETR)
        state = dab_weights.state_dict(num_patterns, saturated='saturated' in name)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        outputs = model(NestedTensor(pixels, mask))
        every = [*outputs['aux_outputs'], outputs]
        logits = torch.stack([item['pred_logits'] for item in every])
        boxes = torch.stack([item['pred_boxes'] for item in every])
        torch.set_default_dtype(torch.float64)
        double = model.double()(NestedTensor(pixels.double(), mask))
        torch.set_default_dtype(torch.float32)
        noise = [
            (double[key] - single[-1]).abs().max().item()
            for key, single in (('pred_logits', logits), ('pred_boxes', boxes))
        ]
        print(
            f'{name}: spread {logits[-1].std(dim=1).mean():.3f}, by layer '
            f'{[round(x.std(dim=1).mean().item(), 3) for x in logits]}, boxes {boxes[-1].std(dim=1).mean():.3f}; '
            f'float32 against float64: {noise[0]:.1e}, {noise[1]:.1e}'
        )
        np.savez_compressed(
            HERE / f'dab_authors_{name}.npz',
            logits=logits[:, :, LOGIT_QUERIES].numpy(),
            boxes=boxes[:, :, LOGIT_QUERIES].numpy(),
            last_boxes=boxes[-1].numpy(),
            last_logits=logits[-1, :, LAST_QUERIES].numpy(),
        )


if __name__ == '__main__':
    main()

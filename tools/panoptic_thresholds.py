"""Measure the panoptic quality of a model by the score threshold of its merging, on the images of its test set.

    SHAPES_ROOT=data/shapes-calibration/ python tools/panoptic_thresholds.py \
        configs/masks/conditional-detr_r18_small-panoptic_1xb8-12e_shapes.py work_dirs/panoptic/epoch_12.pth

Choose on other images than those that the result is reported for: here SHAPES_ROOT holds a set with another seed,
elsewhere --cfg-options sets test_dataloader and test_evaluator. Every image runs through the model once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import DictAction
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmcondetr.engine.coco_panoptic_metric import CocoPanopticMetric  # noqa: E402
from mmcondetr.engine.panoptic_quality import summarise  # noqa: E402
from mmcondetr.markdown import table  # noqa: E402
from mmcondetr.models.masks.panoptic_merging import PanopticMerging  # noqa: E402
from mmcondetr.registry import METRICS  # noqa: E402
from tools.predicted_images import load_with_images  # noqa: E402

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.85)


class EveryThreshold(PanopticMerging):
    """Merges with several thresholds; ``maps`` are those of the last image, (height, width) by threshold."""

    def __init__(self, like: PanopticMerging, thresholds: Sequence[float]) -> None:
        super().__init__(like.num_classes, like.num_things, min(thresholds), like.min_area, like.overlap)
        self.thresholds = thresholds
        self.maps: dict[float, Tensor] = {}

    def merge(self, logits: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """As with the lowest threshold."""
        kept = {threshold: scores > threshold for threshold in self.thresholds}
        self.maps = {
            threshold: super(EveryThreshold, self).merge(logits[k], labels[k], scores[k])
            for threshold, k in kept.items()
        }
        return self.maps[self.score_threshold]


def measure(
    model: nn.Module, loader: Iterable[dict], metric: CocoPanopticMetric, thresholds: Sequence[float]
) -> dict[float, dict[str, float]]:
    """PQ, SQ and RQ as :func:`~mmcondetr.engine.panoptic_quality.summarise` names them, by threshold.

    Args:
        model: a detector that merges masks.
        loader: of batches of one image.
        metric: of the same images.
        thresholds: of scores.
    """
    merging = model.mask_head.panoptic
    model.mask_head.panoptic = every = EveryThreshold(merging, thresholds)
    counts = dict.fromkeys(thresholds, 0)
    for data in loader:
        with torch.no_grad():
            (sample,) = model.test_step(data)
        for threshold, merged in every.maps.items():
            counts[threshold] = counts[threshold] + metric.count(sample.img_id, merged.cpu().numpy())
    model.mask_head.panoptic = merging
    is_thing = np.arange(merging.num_classes) < merging.num_things
    return {threshold: summarise(count, is_thing) for threshold, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--thresholds', type=float, nargs='+', default=THRESHOLDS)
    parser.add_argument('--images', type=int, help='the first ones only')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    config, model, loader = load_with_images(args.config, args.checkpoint, args.cfg_options, args.images, args.device)
    metric = METRICS.build(config.test_evaluator)
    metric.dataset_meta = model.dataset_meta
    measured = measure(model, loader, metric, args.thresholds)
    names = ('PQ', 'SQ', 'RQ', 'PQ_th', 'PQ_st')
    rows = [[f'{threshold:g}', *(f'{row[name]:.1f}' for name in names)] for threshold, row in measured.items()]
    print(table(('score threshold', *names), rows))


if __name__ == '__main__':
    main()

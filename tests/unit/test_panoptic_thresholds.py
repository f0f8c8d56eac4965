"""The tool that measures panoptic quality by score threshold merges as the model does with that threshold."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from panoptic_files import METAINFO, panoptic_dataset, write_panoptic_shapes

from mmcondetr.models.masks.panoptic_merging import PanopticMerging
from mmcondetr.registry import DATASETS, METRICS
from tools.panoptic_thresholds import measure


class AlmostTruth:
    """A model whose masks are the true ones, with scores 0.9, 0.7, ... and one that covers all, with score 0.3."""

    def __init__(self, threshold: float, overlap: float | None) -> None:
        self.mask_head = SimpleNamespace(panoptic=PanopticMerging(9, 6, threshold, overlap=overlap))

    def test_step(self, item: dict) -> list:
        masks = torch.from_numpy(item['gt_masks'].masks).float()
        labels = torch.from_numpy(item['gt_bboxes_labels'])
        order = torch.arange(len(labels))
        result = InstanceData(
            scores=torch.cat([0.9 - 0.2 * order, torch.tensor([0.3])]),
            labels=torch.cat([labels, torch.tensor([0])]),
            queries=torch.cat([order, order.max()[None] + 1]),
        )
        logits = torch.cat([masks * 8 - 4, torch.full_like(masks[:1], 4.5)])
        kept = self.mask_head.panoptic.choose(result)
        merged = self.mask_head.panoptic.merge(logits[kept], result.labels[kept], result.scores[kept])
        return [SimpleNamespace(img_id=item['img_id'], merged=merged)]


@pytest.mark.parametrize('overlap', [None, 0.8])
def test_every_threshold_is_measured_as_if_it_were_the_models(tmp_path, overlap):
    init_default_scope('mmdet')
    root = write_panoptic_shapes(tmp_path / 'shapes')
    items = list(DATASETS.build(panoptic_dataset(root, test_mode=True)))
    ann_file, folder = str(root / 'annotations/panoptic_val.json'), str(root / 'panoptic_val')
    metric = METRICS.build(dict(type='mmcondetr.CocoPanopticMetric', ann_file=ann_file, seg_prefix=folder))
    metric.dataset_meta = METAINFO
    thresholds = (0.1, 0.4, 0.6, 0.8, 0.95)
    model = AlmostTruth(0.5, overlap)
    measured = measure(model, items, metric, thresholds)
    assert model.mask_head.panoptic.score_threshold == 0.5
    for threshold in thresholds:
        samples = [AlmostTruth(threshold, overlap).test_step(item)[0] for item in items]
        results = [(sample.img_id, metric.count(sample.img_id, sample.merged.numpy())) for sample in samples]
        assert measured[threshold] == pytest.approx(metric.compute_metrics(results), nan_ok=True)
    quality = [measured[threshold]['PQ'] for threshold in thresholds]
    assert len(set(quality)) >= 3 and quality[1] == max(quality) > 20

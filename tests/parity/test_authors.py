"""Our models against the authors' code: golden outputs of all four backbones at full depth, matching and loss."""

from argparse import Namespace

import measure
import numpy as np
import pytest
import torch
import weights
from measure import BACKBONES, GOLDEN, SPREAD, TOLERANCE
from mmengine.runner import load_checkpoint

from mmcondetr.checkpoints.classes import COCO_IDS


@pytest.mark.parametrize(
    'backbone', [pytest.param(name, marks=pytest.mark.slow if 'r101' in name else ()) for name in BACKBONES]
)
def test_outputs_and_loss_equal_the_authors(backbone):
    difference = measure.against_authors(backbone)
    assert difference.spread > SPREAD
    assert difference.logits < TOLERANCE
    assert difference.boxes < TOLERANCE
    assert difference.loss < TOLERANCE


def test_a_file_as_the_authors_write_it_loads_into_our_config(tmp_path):
    path = tmp_path / 'ConditionalDETR_r50_epoch50.pth'
    args = Namespace(backbone='resnet50', dilation=False)
    torch.save(dict(model=measure.authors_tensors('r50'), epoch=49, args=args), path)
    model = measure.build(measure.config('r50'))
    load_checkpoint(model, str(path), map_location='cpu')
    logits, boxes = measure.outputs(model, 80)
    golden = np.load(GOLDEN / 'authors_r50.npz')
    assert measure.apart(logits[:, :, ::10], golden['logits'][..., list(COCO_IDS)]) < TOLERANCE
    assert measure.apart(boxes, golden['boxes']) < TOLERANCE


def test_the_wrong_dilation_changes_the_outputs():
    """Proof that the DC5 comparison above can fail: mmdet's dilations=(1, 1, 1, 2) loads the weights and is wrong."""
    difference = measure.wrongly_dilated('r50-dc5')
    assert difference.logits > 100 * TOLERANCE and difference.boxes > 100 * TOLERANCE


LOSS_CASES = [('plain', (7, 4)), ('empty', (0, 5)), ('none', (0, 0)), ('crowded', (40, 60))]


@pytest.mark.parametrize('case, counts', LOSS_CASES)
def test_matching_and_loss_equal_the_authors(case, counts):
    golden = np.load(GOLDEN / f'authors_loss_{case}.npz')
    made = weights.predictions(case, 2, 100, 91)
    logits, boxes = torch.from_numpy(made['logits']), torch.from_numpy(made['boxes'])
    targets = weights.targets(case, 91, counts)
    config = measure.config('r50')
    config.bbox_head.update(num_classes=91, train_cfg=config.train_cfg, test_cfg=config.test_cfg)
    head = measure.build(config.bbox_head)
    matches = head.matcher.match(
        logits,
        boxes,
        [torch.from_numpy(item['labels']) for item in targets],
        [torch.from_numpy(item['boxes']) for item in targets],
    )
    for layer in range(2):
        for image in range(2):
            here = (matches.layer == layer) & (matches.image == image)
            pairs = torch.stack([matches.query[here], matches.target[here]]).numpy()
            assert np.array_equal(pairs, golden[f'match.{layer}.{image}']), (layer, image)
    assert sum(len(item['labels']) for item in targets) * 2 == len(matches.query)
    losses = measure.losses_of(head, logits, boxes, measure.samples(targets))
    assert measure.apart(losses.double(), golden['terms']) < TOLERANCE
    assert golden['terms'][:, 0].min() > 0.1

"""Our DAB-DETR against its authors' code (golden outputs) and mmdet's (live), loaded from their names."""

from pathlib import Path

import dab_weights
import measure
import mmdet
import numpy as np
import pytest
import torch
from measure import GOLDEN, ROOT, SPREAD, TOLERANCE
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmcondetr.checkpoints.renaming import from_ours, recognise, to_ours
from mmcondetr.checkpoints.rules import FAMILIES

CASES = {'r50': ('8xb2', 0), 'r50_3-patterns': ('8xb2', 3), 'r50-dc5': ('8xb1', 0)}


def config(case: str, num_classes: int) -> Config:
    model = Config.fromfile(ROOT / f'configs/dab_detr/dab-detr_{case}_{CASES[case][0]}-50e_coco.py').model
    model.backbone.init_cfg = None
    model.bbox_head.num_classes = num_classes
    return model


def authors_tensors(case: str) -> dict:
    return {name: torch.from_numpy(value) for name, value in dab_weights.state_dict(CASES[case][1]).items()}


def test_saturated_anchors_give_the_authors_outputs():
    """Centres at the border and boxes as large as the image: the authors limit logits in the head, too."""
    tensors = {name: torch.from_numpy(value) for name, value in dab_weights.state_dict(0, saturated=True).items()}
    model = measure.build(config('r50', 91))
    model.load_state_dict(tensors)
    golden = np.load(GOLDEN / 'dab_authors_r50_saturated.npz')
    logits, boxes = measure.outputs(model)
    assert tensors['refpoint_embed.weight'].abs().max() > 8
    assert measure.spread(logits[-1]) > SPREAD
    assert measure.apart(logits[-1, :, ::3], golden['last_logits']) < TOLERANCE
    assert measure.apart(boxes[:, :, ::10], golden['boxes']) < TOLERANCE
    assert measure.apart(boxes[-1], golden['last_boxes']) < TOLERANCE


def our_model(case: str, num_classes: int) -> torch.nn.Module:
    model = measure.build(config(case, num_classes))
    model.load_state_dict(authors_tensors(case))
    return model


@pytest.mark.parametrize('case', CASES)
def test_outputs_equal_the_authors(case):
    golden = np.load(GOLDEN / f'dab_authors_{case}.npz')
    logits, boxes = measure.outputs(our_model(case, 91))
    assert measure.spread(logits[-1]) > SPREAD
    assert measure.apart(logits[:, :, ::10], golden['logits']) < TOLERANCE
    assert measure.apart(logits[-1, :, ::3], golden['last_logits']) < TOLERANCE
    assert measure.apart(boxes[:, :, ::10], golden['boxes']) < TOLERANCE
    assert measure.apart(boxes[-1], golden['last_boxes']) < TOLERANCE


def test_a_file_as_the_authors_write_it_loads_into_our_config(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(model=authors_tensors('r50'), epoch=49), path)
    model = measure.build(config('r50', 80))
    load_checkpoint(model, str(path), map_location='cpu')
    golden = np.load(GOLDEN / 'dab_authors_r50.npz')
    assert measure.apart(measure.outputs(model, 80)[1][-1], golden['last_boxes']) < TOLERANCE


def mmdets(case: str) -> torch.nn.Module:
    path = Path(mmdet.__file__).parent / '.mim/configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py'
    model = Config.fromfile(path).model
    model.backbone = config(case, 80).backbone
    model.num_patterns = CASES[case][1]
    result = measure.build(model, 'mmdet')
    assert type(result).__module__.startswith('mmdet.')
    return result


@pytest.mark.parametrize('case', CASES)
def test_outputs_losses_and_gradients_equal_mmdets(case):
    ours, theirs = our_model(case, 80), mmdets(case)
    theirs.load_state_dict(from_ours(ours.state_dict(), FAMILIES['dab-mmdet'], 'our model'))
    assert recognise(theirs.state_dict()).name == 'dab-mmdet'
    (logits, boxes), (their_logits, their_boxes) = (measure.outputs(model, 80) for model in (ours, theirs))
    assert measure.spread(logits[-1]) > SPREAD
    assert measure.apart(logits, their_logits) < TOLERANCE
    assert measure.apart(boxes, their_boxes) < TOLERANCE

    losses, their_losses = (model.loss(measure.images()[0], measure.model_samples(80)) for model in (ours, theirs))
    assert measure.apart(measure.terms(losses), measure.terms(their_losses)) < TOLERANCE
    for terms in (losses, their_losses):
        sum(terms.values()).backward()
    gradients = {name: value.grad for name, value in ours.named_parameters() if value.grad is not None}
    wanted = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    wanted, _ = to_ours(wanted, FAMILIES['dab-mmdet'], 'gradients')
    assert set(gradients) == set(wanted)
    for name, gradient in gradients.items():
        difference, size = (gradient - wanted[name]).norm(), wanted[name].norm()
        # 5e-5: what rounding leaves where the gradient is zero, as in the first self-attention of equal values.
        assert difference <= 1e-3 * size + 5e-5, f'{name}: {difference:.3g} of {size:.3g}'


def test_files_of_conditional_detr_and_dab_detr_are_told_apart():
    for family in ('authors', 'dab-authors', 'mmdet', 'dab-mmdet'):
        tensors = measure.our_model('r50') if 'dab' not in family else our_model('r50', 91)
        names = from_ours(tensors.state_dict(), FAMILIES[family], 'our model')
        assert recognise(names).name == family

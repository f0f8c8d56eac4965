"""A checkpoint of mmdet's own ConditionalDETR gives its outputs and losses in ours."""

import measure
import pytest
import torch
from measure import SPREAD, TOLERANCE
from mmengine.runner import load_checkpoint


@pytest.mark.parametrize('backbone', ['r50', pytest.param('r101', marks=pytest.mark.slow), 'r50-dc5'])
def test_outputs_and_loss_equal_mmdets(backbone):
    """DC5 uses our backbone in both; mmdet has no config for it."""
    difference = measure.against_mmdet(backbone)
    assert difference.spread > SPREAD
    assert difference.logits < TOLERANCE
    assert difference.boxes < TOLERANCE
    assert difference.loss < TOLERANCE


def test_a_file_as_mmdet_writes_it_loads_into_our_config(tmp_path):
    theirs = measure.mmdet_model('r50')
    theirs.load_state_dict(measure.mmdet_tensors(measure.our_model('r50', 80)))
    path = tmp_path / 'conditional-detr_r50_8xb2-50e_coco.pth'
    torch.save(dict(meta=dict(epoch=50, dataset_meta=dict(classes=('any',))), state_dict=theirs.state_dict()), path)
    ours = measure.build(measure.config('r50'))
    load_checkpoint(ours, str(path), map_location='cpu')
    for mine, other in zip(measure.outputs(ours, 80), measure.outputs(theirs, 80)):
        assert measure.apart(mine, other) < TOLERANCE


def test_mmdets_own_model_still_loads_its_files(tmp_path):
    """Our loaders replace mmengine's for all models: they must not rename the tensors of mmdet's class."""
    theirs = measure.mmdet_model('r50')
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta={}, state_dict=measure.mmdet_tensors(measure.our_model('r50', 80))), path)
    load_checkpoint(theirs, str(path), map_location='cpu', strict=True)
    assert torch.equal(theirs.bbox_head.fc_cls.weight, measure.our_model('r50', 80).bbox_head.class_embed.weight)

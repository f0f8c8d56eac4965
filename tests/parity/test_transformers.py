"""Hugging Face's ConditionalDetrForObjectDetection and ours, from the same files, both ways.

Needs transformers (a test extra; without it these tests are skipped). DC5 needs timm and torchvision there and is
compared by the golden outputs.
"""

import json

import measure
import numpy as np
import pytest
import torch
from measure import GOLDEN, SPREAD, TOLERANCE
from mmengine.runner import load_checkpoint
from safetensors.torch import load_file, save_file

from mmcondetr.checkpoints.conversion import convert
from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES

LAYOUTS = ('huggingface', 'huggingface-resnet', 'huggingface-memory', 'huggingface-memory-resnet')


def _folder(tmp_path, backbone):
    """A folder that our converter wrote from an authors' file."""
    source = tmp_path / f'ConditionalDETR_{backbone.replace("-", "")}_epoch50.pth'
    torch.save(dict(model=measure.authors_tensors(backbone)), source)
    convert(source, tmp_path / 'folder', 'huggingface')
    return tmp_path / 'folder'


@pytest.mark.parametrize('backbone', ['r50', pytest.param('r101', marks=pytest.mark.slow)])
def test_transformers_opens_our_folder_and_agrees(tmp_path, backbone):
    pytest.importorskip('transformers')
    difference = measure.against_transformers(backbone, _folder(tmp_path, backbone))
    assert difference.spread > SPREAD
    assert difference.logits < TOLERANCE
    assert difference.boxes < TOLERANCE
    assert difference.loss < TOLERANCE


def test_we_open_what_transformers_saves(tmp_path):
    """save_pretrained writes the layout of its own ResNet; trainers write a .bin of state_dict()."""
    transformers = pytest.importorskip('transformers')
    theirs = transformers.ConditionalDetrForObjectDetection.from_pretrained(_folder(tmp_path, 'r50')).eval()
    theirs.save_pretrained(tmp_path / 'saved')
    torch.save(theirs.state_dict(), tmp_path / 'pytorch_model.bin')
    wanted = measure.our_model('r50', 80).state_dict()
    for path in (tmp_path / 'saved', tmp_path / 'saved' / 'model.safetensors', tmp_path / 'pytorch_model.bin'):
        model = measure.build(measure.config('r50'))
        load_checkpoint(model, str(path), map_location='cpu')
        assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items()), path


def test_every_layout_on_disk_gives_the_authors_outputs(tmp_path):
    """DC5, which transformers can only run with timm and torchvision: against the authors' golden outputs."""
    path, model = tmp_path / 'model.safetensors', measure.config('r50-dc5')
    model.bbox_head.num_classes = 91
    model = measure.build(model)
    wanted = measure.our_tensors('r50-dc5')
    for layout in LAYOUTS:
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        save_file(from_ours(wanted, FAMILIES[layout], 'rule'), path, metadata=dict(format='pt'))
        load_checkpoint(model, str(path), map_location='cpu')
        loaded = model.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in wanted.items()), layout
    golden = np.load(GOLDEN / 'authors_r50-dc5.npz')
    logits, boxes = measure.outputs(model)
    assert measure.apart(logits[-1, :, ::3], golden['last_logits']) < TOLERANCE
    assert measure.apart(boxes, golden['boxes']) < TOLERANCE


def test_a_dc5_folder_asks_for_timms_dilated_resnet(tmp_path):
    folder = _folder(tmp_path, 'r50-dc5')
    config = json.loads((folder / 'config.json').read_text())
    assert (config['dilation'], config['use_timm_backbone'], config['backbone']) == (True, True, 'resnet50')
    assert 'model.backbone.conv_encoder.model.layer4.0.conv2.weight' in load_file(folder / 'model.safetensors')
    assert config['id2label']['1'] == 'person' and config['id2label']['12'] == 'N/A' and len(config['id2label']) == 91

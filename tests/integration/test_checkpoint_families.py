"""A run of tools/test.py and DetInferencer give the same results with a checkpoint of any family, unconverted."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from tiny import finish, start, start_tool, write_config
from tiny_files import CLASSES, write_model
from tiny_model import tiny_config

from mmcondetr.checkpoints.renaming import from_ours
from mmcondetr.checkpoints.rules import FAMILIES
from mmcondetr.datasets.shapes import SHAPES_CLASSES as SHAPES
from mmcondetr.errors import UserError
from mmcondetr.registry import MODELS


def write_family(folder, tensors, family, names):
    """A checkpoint as that code base writes it; Hugging Face's as a folder, with its classes in reverse order."""
    if family != 'huggingface':
        path = folder / f'{family}.pth'
        key = 'state_dict' if family in ('mmcondetr', 'mmdet') else 'model'
        meta = dict(dataset_meta=dict(classes=names))
        torch.save({key: from_ours(tensors, FAMILIES[family], 'test'), 'meta': meta}, path)
        return path
    path = folder / 'folder'
    path.mkdir()
    head = {name: value.flip(0) for name, value in tensors.items() if 'class_embed' in name}
    renamed = from_ours({**tensors, **head}, FAMILIES[family], 'test')
    save_file({name: value.contiguous() for name, value in renamed.items()}, path / 'model.safetensors')
    labels = {str(index): name for index, name in enumerate(reversed(names))}
    (path / 'config.json').write_text(json.dumps(dict(model_type='conditional_detr', id2label=labels)))
    return path


@pytest.mark.slow
def test_tools_test_reads_every_family(tmp_path):
    config = write_config(tmp_path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(config).model)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    predictions = {}
    for family in ('mmcondetr', 'authors', 'huggingface'):
        path = write_family(tmp_path, model.state_dict(), family, tuple(SHAPES))
        work_dir = tmp_path / family
        options = ('--verbose', '--out', tmp_path / f'{family}.pkl', '--work-dir', work_dir)
        output = finish(start_tool('test', config, path, *options, log=work_dir.with_suffix('.log')), work_dir)
        assert f'recognised as a checkpoint of {FAMILIES[family].title}' in output
        predictions[family] = pickle.loads((tmp_path / f'{family}.pkl').read_bytes())
    wanted = [item['pred_instances'] for item in predictions['mmcondetr']]
    assert max(len(item['scores']) for item in wanted) > 0
    for family in ('authors', 'huggingface'):
        for one, other in zip(wanted, predictions[family]):
            assert torch.allclose(one['scores'], other['pred_instances']['scores'], atol=1e-6)
            assert torch.allclose(one['bboxes'], other['pred_instances']['bboxes'], atol=1e-4)
            assert torch.equal(one['labels'], other['pred_instances']['labels'])


@pytest.mark.slow
def test_fine_tuning_keeps_the_rows_of_known_classes(tmp_path):
    config = write_config(tmp_path, 'train_cfg = dict(max_epochs=1)')
    settings = Config.fromfile(config).model
    settings.bbox_head.num_classes = 3
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(settings)
    path = write_family(tmp_path, model.state_dict(), 'authors', (SHAPES[2], 'unknown', SHAPES[0]))
    changed = write_config(tmp_path, 'train_cfg = dict(max_epochs=1)', f'load_from = {str(path)!r}')
    output = finish(start(changed, tmp_path / 'work'), tmp_path / 'work')
    assert f'4 of their 6 rows ({", ".join(name for name in SHAPES if name not in (SHAPES[0], SHAPES[2]))})' in output
    assert '3 -> 6 classes by name' in output


def test_detinferencer_takes_the_authors_file_and_names_its_classes(tmp_path):
    from mmcondetr.inference.det_inferencer import DetInferencer

    config, checkpoint = write_model(tmp_path, tiny_config())
    settings = Config.fromfile(config)
    settings.test_dataloader.dataset.pipeline[0].type = 'LoadImageFromFile'  # the name that DetInferencer looks for
    settings.visualizer = dict(type='DetLocalVisualizer')
    settings.dump(config)
    (tmp_path / 'annotations.json').write_text(
        json.dumps(
            dict(images=[], annotations=[], categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES)])
        )
    )
    tensors = torch.load(checkpoint, weights_only=True)['state_dict']
    path = write_family(tmp_path, tensors, 'authors', CLASSES)
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    results = []
    for weights in (checkpoint, str(path)):
        inferencer = DetInferencer(config, weights, device='cpu', show_progress=False)
        assert tuple(inferencer.model.dataset_meta['classes']) == CLASSES
        results.append(inferencer(image)['predictions'][0])
    assert len(results[0]['scores']) > 0
    assert results[0] == results[1]
    fast = DetInferencer(config, checkpoint, device='cpu', show_progress=False, optimize='fp32')
    assert not hasattr(fast.model.bbox_head, 'matcher')  # it is optimised
    found = fast(image)['predictions'][0]
    assert found['labels'] == results[0]['labels']
    np.testing.assert_allclose(found['bboxes'], results[0]['bboxes'], rtol=0, atol=1e-4 * 128)
    np.testing.assert_allclose(found['scores'], results[0]['scores'], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(optimize='int8'), "one of fp32, bf16, fp16 or None, got 'int8'"),
        (dict(compile=True), 'compile needs optimize'),
    ],
)
def test_detinferencer_refuses_other_switches(options, message):
    from mmcondetr.inference.det_inferencer import DetInferencer

    with pytest.raises(UserError, match=message):
        DetInferencer('no-such-config', **options)

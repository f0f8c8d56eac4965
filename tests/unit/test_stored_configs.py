"""Configs inside checkpoints are text: neither resuming nor weights alone run them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader
from toy_runner import make_runner

import mmcondetr
from mmcondetr.checkpoints.files import load_file
from mmcondetr.compat.stored_configs import without_configs
from mmcondetr.errors import UserError

NAME = 'conditional-detr_r18_small_1xb16-24e_shapes'
START = 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'


def payload(trap: Path) -> str:
    return f"x = __import__('os').mkdir({str(trap)!r})\nmodel = dict(type='mmdet.FasterRCNN')\n"


def test_resuming_does_not_run_the_config_in_the_checkpoint(tmp_path):
    make_runner(tmp_path / 'run', epochs=1).train()
    checkpoint = load_file(tmp_path / 'run/epoch_1.pth')
    for stored in (checkpoint['meta'], checkpoint['message_hub']['runtime_info']):
        stored['config'] = stored['cfg'] = payload(tmp_path / 'trap')
    checkpoint['message_hub']['resumed_keys']['config'] = True  # as mmengine marks what it stores
    torch.save(checkpoint, tmp_path / 'run/epoch_1.pth')
    runner = make_runner(tmp_path / 'run', epochs=2, resume=True)
    runner.train()
    assert not (tmp_path / 'trap').exists()
    assert runner.epoch == 2
    assert 'mkdir' not in runner.message_hub.get_info('cfg'), 'the next checkpoint names the config that was run'


@pytest.mark.parametrize('inferencer', [DetInferencer, mmcondetr.DetInferencer], ids=['mmdet', 'ours'])
@pytest.mark.parametrize(
    'where', [('meta', 'cfg'), ('message_hub', 'runtime_info', 'cfg')], ids=['meta', 'message_hub']
)
def test_weights_alone_do_not_bring_a_config(tmp_path, inferencer, where):
    checkpoint = dict(state_dict=dict(weight=torch.zeros(1)))
    inner = checkpoint
    for key in where[:-1]:
        inner = inner.setdefault(key, {})
    inner[where[-1]] = payload(tmp_path / 'trap')
    torch.save(checkpoint, tmp_path / 'strange.pth')
    with pytest.raises(
        UserError, match=r'strange.pth. alone does not reveal .* not executed: also pass the config .*model='
    ):
        inferencer(weights=str(tmp_path / 'strange.pth'), device='cpu')
    assert not (tmp_path / 'trap').exists()


def test_weights_alone_take_the_config_that_they_are_named_after(tmp_path, root, monkeypatch):
    weights = tmp_path / f'{NAME}_20260102_030405-0123abcd.safetensors'
    shutil.copy(root / START, weights)
    found = DetInferencer(weights=str(weights), device='cpu').model
    expected = Config.fromfile(root / f'configs/shapes/{NAME}.py').model
    assert type(found).__name__ == 'ConditionalDETR' and found.bbox_head.num_classes == expected.bbox_head.num_classes
    stored = CheckpointLoader.load_checkpoint(str(weights), 'cpu')['state_dict']
    assert any(torch.equal(value, found.decoder.norm.bias) for value in stored.values())


def test_the_name_of_the_run_counts_before_the_name_of_the_file_and_is_no_path(tmp_path, root, monkeypatch):
    asked = []
    monkeypatch.setattr(BaseInferencer, '__init__', lambda self: None)
    stop = RuntimeError('far enough')

    def fromfile(path):
        asked.append(Path(path))
        raise stop

    monkeypatch.setattr(Config, 'fromfile', fromfile)
    from mmengine.config import ConfigDict

    for experiment, message in ((f'{NAME}_20260102_030405', 'far enough'), (f'../shapes/{NAME}', 'does not reveal')):
        torch.save(dict(state_dict={}, meta=dict(experiment_name=experiment)), tmp_path / 'epoch_1.pth')
        with pytest.raises((RuntimeError, UserError), match=message):
            BaseInferencer._init_model(object(), ConfigDict(), str(tmp_path / 'epoch_1.pth'))
    assert [path.stem for path in asked] == [NAME]


def test_another_number_of_classes_than_the_config_of_that_name_has(tmp_path):
    meta = dict(experiment_name=f'{NAME}_20260102_030405', dataset_meta=dict(classes=('cat', 'dog')))
    torch.save(dict(state_dict={}, meta=meta), tmp_path / 'mine.pth')
    with pytest.raises(UserError, match=rf'mine.pth. has 2 classes, .* {NAME}, has 6: also pass the config'):
        DetInferencer(weights=str(tmp_path / 'mine.pth'), device='cpu')


def test_nothing_else_of_a_checkpoint_changes():
    checkpoint = dict(meta=dict(config='x', epoch=1), message_hub=dict(runtime_info=dict(cfg='y', iter=2), z=3), a=[4])
    kept = without_configs(checkpoint)
    assert kept == dict(meta=dict(epoch=1), message_hub=dict(runtime_info=dict(iter=2), z=3), a=[4])
    assert checkpoint['meta']['config'] == 'x' and checkpoint['message_hub']['runtime_info']['cfg'] == 'y'
    plain = dict(state_dict={}, meta=None)
    assert without_configs(plain) is plain

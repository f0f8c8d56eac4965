"""tools/train.py --amp on a CPU: bfloat16 in the forward pass, finite losses, a checkpoint in float32."""

import re

import pytest
import torch
from mmengine.optim import OptimWrapper
from tiny import write_config
from torch import nn

from mmcondetr.engine.amp import CPUAmpOptimWrapper


def test_only_the_forward_pass_is_under_autocast():
    model = nn.Linear(4, 4)
    wrapper = CPUAmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert isinstance(wrapper, OptimWrapper)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 4)).dtype == torch.bfloat16
        assert not torch.is_autocast_enabled()  # a GPU's
    assert model(torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='--amp chooses the GPU where there is one')
def test_amp_trains_on_a_cpu(run_tool, tmp_path):
    config = write_config(tmp_path, 'train_cfg = dict(max_epochs=1)')
    done = run_tool(
        'train',
        config,
        '--amp',
        '--verbose',
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        'model.encoder.with_cp=True',
        'model.decoder.with_cp=True',
        'default_hooks.logger.interval=1',
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    losses = re.findall(r'Epoch\(train\).* loss: (\d+\.\d+)', done.stdout + done.stderr)
    assert len(losses) == 5  # 40 images, 8 a step; nan would not match
    saved = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)['state_dict']
    assert {value.dtype for value in saved.values() if value.is_floating_point()} == {torch.float32}

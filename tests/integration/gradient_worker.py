"""One process of test_distributed.py: gradients of a tiny Conditional DETR, through mmengine's own wrapping.

Called as ``gradient_worker.py OUTPUT LAUNCHER GROUPS``: alone (launcher none) it sees both images, as one of two
processes (pytorch) its own one. With more than one group of queries the model is in training mode, without dropout.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from tiny_model import build, sample, tiny_config

from mmcondetr.engine.launching import prepare_processes, stop


def batch() -> tuple:
    """Two images of one size with one and with three boxes, so that an average per rank would be seen."""
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    size = (96, 128)
    samples = [
        sample(size, size, [[10, 10, 90, 60]], [4]),
        sample(size, size, [[4, 6, 50, 60], [30, 20, 120, 90], [60, 10, 80, 40]], [0, 3, 3]),
    ]
    return images, samples


def tiny(num_groups: int) -> dict:
    model = dict(tiny_config(), training_queries=dict(type='mmcondetr.QueryGroups', num_groups=num_groups))
    for part in ('encoder', 'decoder'):
        model[part] = dict(model[part], layer=dict(model[part]['layer'], dropout=0.0))
    return model


def main(output: str, launcher: str, groups: str) -> None:
    torch.set_num_threads(1)
    model = tiny(int(groups))
    config = Config(dict(launcher=launcher, model=model, work_dir=str(Path(output).parent)))
    prepare_processes(config)
    images, samples = batch()
    if launcher != 'none':
        mine = slice(get_rank(), get_rank() + 1)
        images, samples = images[mine], samples[mine]
    torch.set_default_dtype(torch.float64)  # single precision blurs a softmax that random weights saturate
    runner = Runner(
        model=build(model).double(), work_dir=config.work_dir, launcher=launcher, cfg=config, log_level='ERROR'
    )
    model = runner.model
    model.train(int(groups) > 1)  # no dropout, and BatchNorm as it is: what is left must agree
    losses = model(images, samples, mode='loss')
    sum(losses.values()).backward()
    if get_rank() == 0:
        inner = model.module if is_model_wrapper(model) else model
        torch.save(
            dict(
                wrapped=is_model_wrapper(model),
                world_size=torch.distributed.get_world_size() if launcher != 'none' else 1,
                gradients={name: parameter.grad for name, parameter in inner.named_parameters()},
            ),
            output,
        )
    stop()


if __name__ == '__main__':
    main(*sys.argv[1:])

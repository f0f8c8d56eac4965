"""Several processes without CUDA: mmengine starts NCCL and pins every model to a GPU; here gloo is started."""

from __future__ import annotations

import os

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed

from mmcondetr.errors import UserError


def start_without_cuda(launcher: str) -> bool:
    """Start gloo where ``launcher`` asks for several processes and there is no accelerator.

    mmengine finds the process group in place and starts none. Returns whether it was started.

    Raises:
        UserError: The launcher is not the one that works without CUDA, or it was not used to start this process.
    """
    if launcher == 'none' or get_device() != 'cpu' or distributed.is_initialized():
        return False
    if launcher != 'pytorch':
        raise UserError(f"--launcher {launcher}: without CUDA only 'none' and 'pytorch' work.")
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher pytorch: the environment lacks {", ".join(missing)}. Start the command with '
            '"torchrun --nproc_per_node=2 tools/train.py ... --launcher pytorch", or with "mim train ... '
            '--launcher pytorch -G 2".'
        )
    distributed.init_process_group('gloo')
    return True


def wrap_without_cuda(config: Config) -> None:
    """Make the data-parallel wrapper of ``config`` one for the CPU: mmengine's names a GPU in ``device_ids``."""
    if config.get('launcher', 'none') == 'none' or get_device() != 'cpu':
        return
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=config.get('find_unused_parameters', False),
    )
    wrapper.update(config.get('model_wrapper_cfg') or {})
    wrapper['device_ids'] = None
    config.model_wrapper_cfg = wrapper


def prepare_processes(config: Config) -> None:
    """Call before a Runner is built from ``config``: does nothing where CUDA is, or with one process."""
    start_without_cuda(config.get('launcher', 'none'))
    wrap_without_cuda(config)


def stop() -> None:
    """Leave the process group, if there is one, so that torch has nothing to complain of at exit."""
    if torch.distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()

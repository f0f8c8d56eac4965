"""Train a detector; takes the options of mmdet's tools/train.py, and is also available as tools/train.py.

    mmcondetr train my_config.py --work-dir work_dirs/mine --log tensorboard
    mmcondetr train conditional-detr_r50_8xb2-50e_coco --cfg-options train_dataloader.batch_size=4

On SIGTERM (Slurm, Kubernetes) it saves before the next step and ends with exit code 75; --resume continues from there.
"""

import argparse
import importlib.util
import os

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process

from mmcondetr.cli.common import add_common_arguments, build_runner, check_work_dir, use_local_rank
from mmcondetr.engine.checkpoint_hook import CheckpointHook
from mmcondetr.engine.config import apply_training_options, load_config
from mmcondetr.engine.folder_lock import lock_folder
from mmcondetr.engine.launching import join
from mmcondetr.engine.stopping import asked, stoppable
from mmcondetr.errors import UserError

#: Option -> the package that it needs, and mmengine's backend.
LOGGERS = {'tensorboard': ('tensorboard', 'TensorboardVisBackend'), 'wandb': ('wandb', 'WandbVisBackend')}
RESUME_HINT = 'the same command with --resume'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision')
    parser.add_argument('--amp-dtype', choices=['bf16', 'fp16'], help='with --amp (default: fp16, and bf16 on a CPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the total batch size, relative to auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or without a value from the last one in the work directory',
    )
    parser.add_argument('--log', choices=LOGGERS, help='also log to this service; its package must be installed')


def add_logger(config: Config, name: str) -> None:
    """Also log to TensorBoard or Weights & Biases.

    Raises:
        UserError: it is not installed.
    """
    package, backend = LOGGERS[name]
    if importlib.util.find_spec(package) is None:
        raise UserError(f'--log {name}: the package {package} is not installed: pip install {package}.')
    project = dict(init_kwargs=dict(project=os.path.basename(config.work_dir))) if name == 'wandb' else {}
    backends = [*config.visualizer.get('vis_backends', []), dict(type=backend, **project)]
    config.visualizer.vis_backends = backends


def run(args: argparse.Namespace) -> None:
    use_local_rank(args)
    config = load_config(args)
    join(config)  # before anything that can fail on one machine only, so that the others are told
    apply_training_options(config, args)
    if args.log:
        add_logger(config, args.log)
    check_work_dir(config.work_dir)
    if is_main_process():  # before mmengine writes the config there; the checkpoint hook unlocks it
        os.makedirs(config.work_dir, exist_ok=True)
        lock_folder(config.work_dir)
    runner = build_runner(config, args.verbose)
    with stoppable():
        try:
            runner.train()
        except (EOFError, OSError, RuntimeError):  # Slurm's signal also ends the loader's workers
            hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
            if not asked() or get_world_size() > 1 or hook is None or not hook.between_steps:
                raise
            hook.stop(runner)

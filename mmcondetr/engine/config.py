"""From a command line to a config: find it by path or name, and apply the command line's changes."""

from __future__ import annotations

import difflib
import os
from argparse import Namespace
from pathlib import Path

import torch
from mmengine.config import Config

from mmcondetr.checkpoints.work_dirs import checkpoints_in, last_checkpoint, noted_checkpoint
from mmcondetr.compat.config_scope import config_root
from mmcondetr.engine.check_masks import check_trained_masks
from mmcondetr.engine.config_options import apply_options
from mmcondetr.errors import UserError
from mmcondetr.terminal import say


def find_config(name: str) -> str:
    """The path of a config, given as a path or as the name of one of our configs with or without ``.py``.

    Raises:
        UserError: There is none, or there are several of that name; the message lists them or similar names.
    """
    if os.path.isfile(name):
        return name
    file_name = name if name.endswith('.py') else f'{name}.py'
    root = config_root()
    ours = sorted(path for path in root.rglob('*.py') if '_base_' not in path.relative_to(root).parts)
    found = [path for path in ours if path.as_posix().endswith(f'/{file_name}')]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise UserError(f"Config '{name}' is the name of several: {', '.join(map(str, found))}. Pass the path of one.")
    close = difflib.get_close_matches(Path(file_name).name, [path.name for path in ours], n=3, cutoff=0.5)
    hint = f' Did you mean {", ".join(close)}?' if close else ''
    raise UserError(f"Config '{name}' is neither a file nor the name of a config in {root}.{hint}")


def read_config(path: str) -> Config:
    """Read the config file at ``path``, which is Python and runs.

    Raises:
        UserError: It, or a config that it is based on, is missing or raises an error: one line that names the file.
    """
    try:
        return Config.fromfile(path)
    except FileNotFoundError as error:
        raise UserError(f"Config '{path}' is based on a file that does not exist: {error}") from error
    except SyntaxError as error:
        raise UserError(f"Config '{path}' is not valid Python: {error}") from error
    except Exception as error:  # whatever it runs may raise anything
        said = error.args[0] if isinstance(error, KeyError) and error.args else error  # a KeyError is shown in quotes
        raise UserError(
            f"Config '{path}' cannot be read: {type(error).__name__}: {' '.join(str(said).split())} "
            '(MMCONDETR_TRACEBACK=1 in the environment shows where).'
        ) from error


def load_config(args: Namespace) -> Config:
    """Read ``args.config`` and apply ``launcher``, ``cfg_options`` and ``work_dir`` (default: work_dirs/<config name>).

    Raises:
        UserError: The config, or a config that it is based on, is missing or unreadable, or nothing reads an option.
    """
    config = read_config(find_config(args.config))
    config.launcher = args.launcher
    if args.cfg_options is not None:
        apply_options(config, args.cfg_options)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', Path(config.filename).stem)
    start = config.get('load_from')
    if start and '://' not in start:  # a config relative to its own folder has '..' in it
        config.load_from = os.path.normpath(start)
    return config


def apply_training_options(config: Config, args: Namespace) -> None:
    """Apply ``--amp``, ``--auto-scale-lr`` and ``--resume`` as mmdet's tools/train.py does, and ``--amp-dtype``.

    If there is nothing to resume yet, ``--resume`` starts a new run, from ``load_from`` if the config has it.

    Raises:
        UserError: ``--amp-dtype fp16`` without a GPU; ``--auto-scale-lr`` with a config that does not specify the batch
            size of its learning rate; the checkpoint to start from does not exist; masks are trained that are not
            loaded.
    """
    if args.amp:
        _use_mixed_precision(config, args.amp_dtype)
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise UserError(
                f"--auto-scale-lr: config '{config.filename}' has no auto_scale_lr.base_batch_size, the batch "
                'over all GPUs that its learning rate is meant for.'
            )
        config.auto_scale_lr.enable = True
    if args.resume == 'auto':
        noted, found = noted_checkpoint(config.work_dir), last_checkpoint(config.work_dir)
        config.resume = bool(noted or found)
        if config.resume:
            # The note may name a file of another folder (CheckpointHook's out_dir), or of where this one was before.
            config.load_from = noted if noted and os.path.isfile(noted) else found or noted
        else:
            start = config.get('load_from') or 'the initial weights'
            say(f'--resume: nothing to resume in {config.work_dir} yet; starting from {start}')
    elif args.resume is not None:
        found = last_checkpoint(args.resume) if os.path.isdir(args.resume) else None
        config.resume, config.load_from = True, found or args.resume
    else:
        _say_what_is_there(config)
    _prepare_start(config)


def _say_what_is_there(config: Config) -> None:
    """Warn that a new run in the folder of another would replace its checkpoints one by one."""
    names = checkpoints_in(config.work_dir) if config.get('work_dir') else []
    if names and os.environ.get('RANK', '0') == '0':
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        say(
            f'warning: {config.work_dir} holds checkpoints of an earlier run ({shown}), which this one will overwrite. '
            '--resume continues that run, --work-dir names another folder.'
        )


def _use_mixed_precision(config: Config, dtype: str | None) -> None:
    """mmengine's AmpOptimWrapper on a GPU, ours on a CPU; the default is fp16, on a CPU bf16."""
    if torch.cuda.is_available():
        config.optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16' if dtype == 'bf16' else 'float16')
        config.optim_wrapper.setdefault('loss_scale', 'dynamic')
    elif dtype == 'fp16':
        raise UserError('--amp-dtype fp16: training in fp16 needs a GPU; on a CPU use --amp-dtype bf16.')
    else:
        config.optim_wrapper.type = 'mmcondetr.CPUAmpOptimWrapper'
        config.optim_wrapper.pop('loss_scale', None)


def check_start(config: Config) -> None:
    """Check that the checkpoint that a config starts from exists, if there is one.

    Raises:
        UserError: It does not, or a frozen detector has none.
    """
    start = config.get('load_from')
    if start and '://' not in start and not os.path.exists(start):
        raise UserError(
            f"load_from: checkpoint '{start}' does not exist (config '{config.filename}', or --resume)."
            f'{_recipe_of(start)}'
        )
    frozen = ((config.get('model') or {}).get('mask_head') or {}).get('freeze_detector')
    if frozen and not start:
        raise UserError(
            f"load_from: config '{config.filename}' trains the masks of a frozen detector "
            '(model.mask_head.freeze_detector), so it needs the checkpoint of one: pass --cfg-options load_from=FILE.'
        )


def _recipe_of(checkpoint: str) -> str:
    """Where a missing checkpoint comes from, if its folder is the work directory of one of our configs."""
    name = Path(checkpoint).parent.name
    if not any(config_root().rglob(f'{name}.py')):
        return ''
    return f" It is written by 'mmcondetr train {name}': run this first, or pass --cfg-options load_from=FILE."


def _prepare_start(config: Config) -> None:
    """Check the start and the masks now; a checkpoint includes the backbone, so no other weights are fetched."""
    check_start(config)
    check_trained_masks(config)
    start = config.get('load_from')
    if (start or config.get('resume')) and str(config.get('model', {}).get('type')).startswith('mmcondetr.'):
        config.model.backbone.init_cfg = None

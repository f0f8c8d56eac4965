"""Applies the options of testing to a config: checkpoint, drawn predictions, test-time augmentation, dump."""

from __future__ import annotations

import inspect
from argparse import Namespace
from copy import deepcopy
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmcondetr.checkpoints.reading import find_file
from mmcondetr.engine.coco_panoptic_metric import measures_panoptic
from mmcondetr.engine.config_types import class_of
from mmcondetr.errors import UserError

#: ``--runtime`` -> the provider of runtime's runner.
RUNTIMES = dict(onnx='cpu', openvino='openvino')
TTA_META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')


def apply_testing_options(config: Config, args: Namespace) -> None:
    """Apply the checkpoint, ``--show``, ``--show-dir`` and ``--tta`` as mmdet's tools/test.py does, and our options.

    These are ``--batch-size``, ``--optimize``, ``--compile``, ``--runtime`` and ``--runtime-precision``.

    Raises:
        UserError: ``--batch-size`` is below 1, ``--out`` is not a pickle file, the config has no visualization hook,
            --compile is given without --optimize, or --runtime together with options that change the model or with an
            evaluation that needs more than an exported file outputs.
    """
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f"--out '{args.out}': must be a file that ends in .pkl or .pickle.")
    _leave_averaging_out(config)
    is_file = args.runtime or '://' in args.checkpoint
    config.load_from = args.checkpoint if is_file else find_file(args.checkpoint)
    if args.batch_size is not None:
        if args.batch_size < 1:
            raise UserError(f'--batch-size must be at least 1, got {args.batch_size}.')
        batches = dict(type='mmcondetr.SameShapeBatchSampler')
        config.test_dataloader.update(batch_size=args.batch_size, batch_sampler=batches)
    if args.show or args.show_dir:
        if 'visualization' not in config.get('default_hooks', {}):
            raise UserError(f"--show and --show-dir: config '{config.filename}' has no default_hooks.visualization.")
        hook = config.default_hooks.visualization
        hook.draw = True
        if args.show:
            hook.show, hook.wait_time = True, args.wait_time
        if args.show_dir:
            hook.test_out_dir = args.show_dir
    if args.compile and not args.optimize:
        raise UserError('--compile: needs --optimize, with a precision.')
    if args.optimize:
        hook = dict(type='mmcondetr.OptimizeForInferenceHook', precision=args.optimize, compile=args.compile)
        hook['keep_memory'] = True  # the process only tests
        config.custom_hooks = [*config.get('custom_hooks', []), hook]
    if args.tta:
        _augment_tests(config)
    if args.runtime:
        if args.optimize or args.tta:
            raise UserError('--runtime: an exported file cannot be combined with --optimize or --tta.')
        _test_exported(config, args)


def _leave_averaging_out(config: Config) -> None:
    """Remove hooks that average the weights in training: a checkpoint's weights are the averages already.

    Such a hook would copy the model, which an exported file does not allow, and put its copy's weights into the model
    after that was optimised.
    """

    def averages(hook: Any) -> bool:
        cls = class_of(hook, 'HOOKS') if isinstance(hook, dict) else type(hook)
        return inspect.isclass(cls) and issubclass(cls, EMAHook)

    if config.get('custom_hooks'):
        config.custom_hooks = [hook for hook in config.custom_hooks if not averages(hook)]
    for name in [name for name, hook in (config.get('default_hooks') or {}).items() if averages(hook)]:
        config.default_hooks.pop(name)


def _test_exported(config: Config, args: Namespace) -> None:
    """Replace the model by the exported file.

    Raises:
        UserError: the evaluation needs an output that exported files do not have.
    """
    from mmdet.registry import DATASETS

    if measures_panoptic(config.get('test_evaluator')):
        raise UserError(
            '--runtime: test_evaluator measures panoptic quality, and an exported file gives masks but no panoptic '
            'map. Evaluate the checkpoint.'
        )
    settings = config.test_dataloader.dataset
    with DefaultScope.overwrite_default_scope('mmdet'):
        meta = DATASETS.get(settings.type).METAINFO
    config.model = ConfigDict(
        type='mmcondetr.ExportedDetector',
        file=args.checkpoint,
        provider=RUNTIMES[args.runtime],
        precision=args.runtime_precision,
        classes=tuple({**meta, **settings.get('metainfo', {})}['classes']),
    )
    config.load_from = None


def _augment_tests(config: Config) -> None:
    """Test on each image and its mirror image, and merge both with non-maximum suppression."""
    model = config.get('tta_model') or ConfigDict(
        type='mmdet.DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    )
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    pipeline = config.get('tta_pipeline')
    if pipeline is None:
        pipeline = deepcopy(dataset.pipeline)
        flips = [dict(type='mmdet.RandomFlip', prob=1.0), dict(type='mmdet.RandomFlip', prob=0.0)]
        pack = [dict(type='mmdet.PackDetInputs', meta_keys=TTA_META)]
        pipeline[-1] = ConfigDict(type='TestTimeAug', transforms=[flips, pack])
    config.model = ConfigDict(**model, module=config.model)
    dataset.pipeline = pipeline


def dump_predictions(runner: Runner, path: str) -> None:
    """Also write all predictions of the test into the pickle file ``path``."""
    from mmdet.evaluation import DumpDetResults

    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=path))

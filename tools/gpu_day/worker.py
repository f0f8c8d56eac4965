"""The parts that no other tool covers: CUDA tests, parity, mixed precision, resuming, torch.compile and overfitting.

Each writes ``figures.json`` into its folder, after every figure, and exits with 1 if one exceeds its bound.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmengine.runner  # noqa: F401  (from here on mmengine's own checkpoints can be read)
import torch

import mmcondetr  # noqa: F401  (before anything of mmdet)
from tools.gpu_day.parts import ROOT
from tools.lanes.running import read_junit

sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'tests/parity'), str(ROOT / 'tests/integration')]

CUDA_BOUND = 2e-3
"""Largest difference of logits and boxes between CUDA without TF32 and the CPU, both float32."""

MMDET_BOUND = 2e-3
RESUME_BOUND = 1e-4


class Figures:
    """Named numbers with bounds, saved after each."""

    def __init__(self, folder: Path) -> None:
        self.path, self.values, self.good = folder / 'figures.json', {}, True

    def add(self, name: str, value, bound: float | None = None) -> None:
        """Record a number; with ``bound``, the part fails if the number is larger."""
        within = bound is None or value <= bound  # false for NaN
        self.values[name] = dict(value=value, bound=bound, within=within) if bound is not None else value
        self.good = self.good and within
        self.path.write_text(json.dumps(self.values, indent=1) + '\n')
        print(name, value, 'bound', bound, flush=True)

    def check(self, name: str, holds: bool) -> None:
        """Record whether something holds; if not, the part fails."""
        self.values[name], self.good = holds, self.good and holds
        self.path.write_text(json.dumps(self.values, indent=1) + '\n')
        print(name, holds, flush=True)


CUDA_TESTS = ('tests/unit', 'tests/parity/test_mmcv_ops.py')


def cuda_tests(args: argparse.Namespace, figures: Figures) -> None:
    """The tests marked ``cuda``: models, masks, ops, and the ops against mmcv's kernels where mmcv was compiled."""
    junit = Path(args.out, 'junit.xml')
    options = ('--override-ini', 'addopts=--import-mode=importlib', '-p', 'no:cacheprovider', '-q', '-m', 'cuda')
    environment = os.environ | (dict(MMCONDETR_REHEARSE_CUDA='1') if args.tiny else {})
    command = [sys.executable, '-m', 'pytest', *options, *CUDA_TESTS, '--junitxml', str(junit)]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    for name, value in read_junit(junit).items():
        figures.add(name, value)
    figures.check('some passed, none failed', code == 0 and figures.values['passed'] > 0)


def _apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first.float().cpu() - second.float().cpu()).abs().max().item()


def _models() -> tuple[torch.nn.Module, torch.nn.Module]:
    import measure

    ours, theirs = measure.our_model('r50', 80), measure.mmdet_model('r50')
    theirs.load_state_dict(measure.mmdet_tensors(ours))
    return ours, theirs


def _run(model: torch.nn.Module, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, boxes and loss terms of the two images on ``device``."""
    import measure

    images = measure.images()[0].to(device)
    samples = [sample.to(device) for sample in measure.model_samples(80)]
    model = model.to(device)
    with torch.no_grad():
        logits, boxes = model(images, samples, mode='tensor')
        return logits.float(), boxes.float(), measure.terms(model.loss(images, samples))


def parity(args: argparse.Namespace, figures: Figures) -> None:
    """R50 on two padded images, with weights under which every part affects the outputs."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    ours, theirs = _models()
    on_cpu = _run(ours, 'cpu')
    on_device, of_mmdet = _run(ours, args.device), _run(theirs, args.device)
    for index, name in enumerate(('logits', 'boxes', 'losses')):
        figures.add(f'{name}: {args.device} against cpu', _apart(on_device[index], on_cpu[index]), CUDA_BOUND)
        figures.add(
            f'{name}: ours against mmdet, {args.device}', _apart(on_device[index], of_mmdet[index]), MMDET_BOUND
        )
    figures.add('spread of the logits over queries', on_cpu[0][-1].std(dim=1).mean().item())
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast(args.device, dtype):
            reduced = _run(ours, args.device)
        figures.add(f'logits: {dtype} against float32, {args.device}', _apart(reduced[0], on_device[0]))
        figures.check(f'{dtype}: all finite', all(bool(part.isfinite().all()) for part in reduced))


FEW_IMAGES = """
data = dict(generate=dict(num_train=16, num_val=2, image_size=64))
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
"""


def _config(args: argparse.Namespace) -> Path:
    """The tiny config, for a rehearsal with few images."""
    from tiny import write_config

    return write_config(Path(args.out), *((FEW_IMAGES,) if args.tiny else ()))


def _train(config: Path, folder: Path, name: str, *flags: str, kill_at: str | None = None) -> str:
    """Train in a process of its own; returns its output.

    ``kill_at``: a file in the work directory; the process gets SIGKILL as soon as it exists.
    """
    work = folder / name
    command = [sys.executable, 'tools/train.py', str(config), '--verbose', '--work-dir', str(work), *flags]
    with open(folder / f'{name}.log', 'a') as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        while kill_at and process.poll() is None and not (work / kill_at).exists():
            time.sleep(0.005)
        if kill_at and process.poll() is None:
            process.send_signal(signal.SIGKILL)
        code = process.wait()
    text = (folder / f'{name}.log').read_text()
    if code != (-signal.SIGKILL if kill_at else 0):
        raise SystemExit(f'{name}: exit code {code}\n{text[-2000:]}')
    return text


def amp(args: argparse.Namespace, figures: Figures) -> None:
    """Short trainings from one seed; the losses of each are finite and end near float32's."""
    epochs = ('--cfg-options', f'train_cfg.max_epochs={1 if args.tiny else 6}', 'default_hooks.logger.interval=1')
    kinds = {'bf16': ('--amp', '--amp-dtype', 'bf16')}
    if not args.tiny:  # a CPU trains in bfloat16 only
        kinds |= {'fp32': (), 'fp16': ('--amp', '--amp-dtype', 'fp16')}
    for name, flags in kinds.items():
        started = time.monotonic()
        text = _train(_config(args), Path(args.out), name, *flags, *epochs)
        losses = [float(value) for value in re.findall(r'Epoch\(train\).* loss: ([\d.]+|nan|inf)', text)]
        figures.check(f'{name}: {len(losses)} losses, all finite', bool(losses) and max(losses) < float('inf'))
        figures.add(f'{name}: last loss', losses[-1] if losses else None)
        figures.add(f'{name}: seconds', round(time.monotonic() - started, 1))


def resume(args: argparse.Namespace, figures: Figures) -> None:
    """Killed after its first checkpoint and resumed: the final weights compared with an uninterrupted run's."""
    from mmcondetr.checkpoints.files import load_file

    folder, epochs = Path(args.out), 2 if args.tiny else 4
    flags = ('--cfg-options', f'train_cfg.max_epochs={epochs}', 'randomness.deterministic=True')
    config = _config(args)
    _train(config, folder, 'unbroken', *flags)
    _train(config, folder, 'broken', *flags, kill_at='epoch_1.pth')
    _train(config, folder, 'broken', '--resume', *flags)
    first, second = (load_file(folder / name / f'epoch_{epochs}.pth')['state_dict'] for name in ('unbroken', 'broken'))
    figures.check('the same tensors', list(first) == list(second))
    figures.add('largest difference of a weight', max(_apart(first[key], second[key]) for key in first), RESUME_BOUND)


def compile_(args: argparse.Namespace, figures: Figures) -> None:
    """The transformer under torch.compile: a single graph, equal outputs, and the time of each."""
    if args.tiny:
        from tiny_model import build, tiny_config

        model, features = build(tiny_config()), torch.randn(2, 32, 3, 4)
    else:
        import measure

        model, features = measure.our_model('r50', 80).to(args.device), torch.randn(2, 256, 25, 34, device=args.device)
    torch._dynamo.reset()
    backend = 'aot_eager' if args.tiny else 'inductor'
    compiled = torch.compile(model.forward_transformer, fullgraph=True, backend=backend)  # raises where it breaks
    with torch.no_grad():
        started = time.monotonic()
        result = compiled(features, None)
        figures.add('seconds to compile', round(time.monotonic() - started, 1))
        expected = model.forward_transformer(features, None)
        figures.add('largest difference of the hidden states', _apart(result[0], expected[0]), 2e-3)
        for name, function in (('eager', model.forward_transformer), ('compiled', compiled)):
            figures.add(f'{name}: milliseconds', _milliseconds(function, features, args.device, 2 if args.tiny else 50))


def _milliseconds(function, features: torch.Tensor, device: str, repeats: int) -> float:
    """Median of ``repeats`` calls, after three for warming up."""
    times = []
    for _ in range(repeats + 3):
        if device == 'cuda':
            torch.cuda.synchronize()
        started = time.perf_counter()
        function(features, None)
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return round(1e3 * sorted(times[3:])[repeats // 2], 3)


def _pretend_coco128(folder: Path) -> Path:
    """Four generated images in COCO128's layout, for the rehearsal."""
    import cv2
    import numpy as np
    from mmdet.datasets import CocoDataset

    (folder / 'annotations').mkdir(parents=True, exist_ok=True)
    (folder / 'train2017').mkdir(exist_ok=True)
    images, annotations = [], []
    for number in range(1, 5):
        cv2.imwrite(str(folder / 'train2017' / f'{number}.png'), np.full((48, 64, 3), 50 * number, np.uint8))
        images.append(dict(id=number, file_name=f'{number}.png', height=48, width=64))
        annotations.append(dict(id=number, image_id=number, category_id=1, bbox=[8, 8, 30, 30], area=900, iscrowd=0))
    names = CocoDataset.METAINFO['classes']
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
    data = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'annotations' / 'instances_train2017.json').write_text(json.dumps(data))
    return folder


def overfit(args: argparse.Namespace, figures: Figures) -> None:
    """An R50 from scratch on 16 images: the loss by epoch and the AP on the same images."""
    folder = Path(args.out)
    data = _pretend_coco128(folder / 'coco128') if args.tiny else args.coco128
    if not data or not Path(data, 'annotations/instances_train2017.json').is_file():
        raise SystemExit(f'no COCO128 at {data}: pass --coco128 DIR')
    os.environ['COCO128_ROOT'] = f'{Path(data).resolve()}/'
    images, epochs, side = (4, 1, 64) if args.tiny else (16, 250, 480)
    base = ROOT / 'configs/coco128/conditional-detr_r50_from-scratch_1xb4-100e_coco128.py'
    config = folder / 'overfit.py'
    config.write_text(
        f"_base_ = '{base}'\n"
        "load, boxes = dict(type='mmcondetr.LoadImage'), dict(type='mmdet.LoadAnnotations', with_bbox=True)\n"
        f"resize = dict(type='mmdet.Resize', scale=({side}, {side}), keep_ratio=True)\n"
        "pack = dict(type='mmdet.PackDetInputs')\n"
        'meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")\n'
        "pack_test = dict(type='mmdet.PackDetInputs', meta_keys=meta)\n"
        f'train_dataloader = dict(dataset=dict(indices={images}, pipeline=[load, boxes, resize, pack]))\n'
        f'val_dataloader = dict(dataset=dict(indices={images}, pipeline=[load, resize, boxes, pack_test]))\n'
        'test_dataloader = val_dataloader\n'
        f'train_cfg = dict(max_epochs={epochs}, val_interval={max(1, epochs // 5)})\n'
        f"param_scheduler = [dict(type='MultiStepLR', end={epochs}, milestones=[{max(1, epochs * 4 // 5)}])]\n"
        f'default_hooks = dict(checkpoint=dict(interval=1000, save_last={not args.tiny}), logger=dict(interval=1))\n'
        'model = dict(encoder=dict(layer=dict(dropout=0.0)), decoder=dict(layer=dict(dropout=0.0)))\n'
    )
    text = _train(config, folder, 'run')
    losses = [float(value) for value in re.findall(r'Epoch\(train\).* loss: ([\d.]+|nan|inf)', text)]
    figures.add('steps', len(losses))
    figures.add('first loss', losses[0])
    figures.add('last loss', losses[-1])
    figures.add('AP on the same images', [float(value) for value in re.findall(r'bbox_mAP: ([\d.-]+)', text)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = dict(parity=parity, amp=amp, resume=resume, compile=compile_, overfit=overfit)
    kinds['cuda-tests'] = cuda_tests
    parser.add_argument('part', choices=list(kinds))
    parser.add_argument('out')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--tiny', action='store_true')
    parser.add_argument('--coco128')
    args = parser.parse_args()
    figures = Figures(Path(args.out))
    kinds[args.part](copy.copy(args), figures)
    return int(not figures.good)


if __name__ == '__main__':
    sys.exit(main())

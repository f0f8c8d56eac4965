"""Run the parts of the GPU day one after the other; each keeps its results if another fails.

bash tools/gpu_day.sh OUT --coco128 /path/to/coco128       # all of it, at most 40 minutes
bash tools/gpu_day.sh OUT --parts benchmark compile        # some; the results of the others in OUT are kept
bash tools/gpu_day.sh OUT --rehearse                       # tiny sizes on a CPU, to find mistakes before the day
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from tools.gpu_day.parts import ROOT, Part, parts


def run_part(part: Part, out: Path, limit: float) -> dict:
    """Run one part under ``out``/<its name> for at most ``limit`` seconds; returns its entry in gpu_day.json."""
    folder = out / part.name
    folder.mkdir(parents=True, exist_ok=True)
    command = [argument.replace('{out}', str(folder)) for argument in part.command]
    started = time.monotonic()
    with open(folder / 'log.txt', 'w') as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what is left running, such as the loaders of a killed training
            except ProcessLookupError:
                pass
            process.wait()
    outcome = 'out of time' if code is None else 'done' if code == 0 else f'failed with exit code {code}'
    result = dict(what=part.what, outcome=outcome, seconds=round(time.monotonic() - started, 1), command=command)
    figures = folder / 'figures.json'
    if figures.exists():
        result['figures'] = json.loads(figures.read_text())
    if outcome != 'done':
        result['last_lines'] = (folder / 'log.txt').read_text(errors='replace').splitlines()[-15:]
    return result


def time_for(parts: list[Part], left: float) -> float:
    """Seconds for the first of ``parts`` if ``left`` seconds are left for all of them."""
    first, *rest = parts
    limit = max(first.limit, left - sum(part.limit for part in rest)) if first.longer else first.limit
    return min(limit, left)


def environment(rehearse: bool) -> dict:
    """The machine and versions of the measurement."""
    import torch

    found = dict(python=platform.python_version(), torch=torch.__version__, rehearsal=rehearse)
    if torch.cuda.is_available():
        found |= dict(gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda)
    commit = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return found | dict(commit=commit or None, date=f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC')


def prepare_rehearsal(out: Path) -> None:
    """A base config for the convergence's rehearsal: the small model, ten generated images."""
    folder = out / 'convergence'
    folder.mkdir(parents=True, exist_ok=True)
    data = f"data = dict(data_root='{folder / 'shapes'}', generate=dict(num_train=8, num_val=2, image_size=64))"
    base = ROOT / 'configs/shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'
    (folder / 'base.py').write_text(
        f"_base_ = '{base}'\n{data}\n"
        'train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=data)\n'
        'val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)\n'
        f"test_dataloader = val_dataloader\nval_evaluator = dict(ann_file='{folder}/shapes/annotations/val.json')\n"
        'test_evaluator = val_evaluator\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='folder of the results')
    parser.add_argument('--rehearse', action='store_true', help='tiny sizes on the CPU')
    parser.add_argument('--parts', nargs='+', metavar='PART', help='only these (default: all, in order)')
    parser.add_argument('--coco128', default=os.environ.get('COCO128_ROOT'), help='folder of COCO128, for overfit')
    parser.add_argument('--more-systems', nargs='*', default=[], help='for convergence, besides the five')
    parser.add_argument('--minutes', type=float, default=40, help='for all parts together (default: 40)')
    args = parser.parse_args()
    import torch

    import mmcondetr  # noqa: F401  (fails here, and in words, where something is missing)

    if not args.rehearse and not torch.cuda.is_available():
        parser.error('no GPU: PyTorch sees none (--rehearse runs tiny sizes on a CPU)')
    chosen = parts(args)
    names = [part.name for part in chosen]
    unknown = set(args.parts or ()) - set(names)
    if unknown:
        parser.error(f'--parts: no part {", ".join(sorted(unknown))}; there are {", ".join(names)}')
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.rehearse:
        prepare_rehearsal(out)
    summary = out / 'gpu_day.json'
    results = json.loads(summary.read_text()) if summary.exists() else {}
    results['environment'] = environment(args.rehearse)
    end = time.monotonic() + 60 * args.minutes
    good = True
    chosen = [part for part in chosen if not args.parts or part.name in args.parts]
    for index, part in enumerate(chosen):
        left = end - time.monotonic()
        if left < 10:
            results[part.name] = dict(what=part.what, outcome='no time left')
        else:
            results[part.name] = run_part(part, out, time_for(chosen[index:], left))
        summary.write_text(json.dumps(results, indent=1) + '\n')
        print(f'{part.name}: {results[part.name]["outcome"]}, {results[part.name].get("seconds", 0)} s', flush=True)
        good = good and results[part.name]['outcome'] == 'done'
    return int(not good)


if __name__ == '__main__':
    sys.exit(main())

"""tools/test.py --optimize on the pretrained checkpoint: its known AP."""

import re

import pytest

CONFIG = 'configs/shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'
START = 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'


def average_precision(completed) -> float:
    assert completed.returncode == 0, completed.stderr[-2000:]
    found = re.findall(r'coco/bbox_mAP: (\d\.\d+)', completed.stdout + completed.stderr)
    assert found, completed.stdout[-2000:]
    return float(found[-1])


@pytest.mark.slow
def test_bf16_keeps_the_ap_within_two_tenths_of_a_point(run_tool, root, tmp_path):
    if not (root / START).is_file():
        pytest.skip('the pretrained checkpoint is not in this checkout')
    data = tmp_path / 'shapes'
    assert run_tool('generate_shapes', data, '--num-train', 2, cwd=tmp_path).returncode == 0
    common = [
        root / CONFIG,
        root / START,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        f'test_dataloader.dataset.data_root={data}/',
        f'test_evaluator.ann_file={data}/annotations/val.json',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        'test_dataloader.dataset.generate.num_train=2',
    ]
    exact, fast = (
        average_precision(run_tool('test', *common, *options, cwd=tmp_path)) for options in ([], ['--optimize', 'bf16'])
    )
    assert exact > 0.4  # a trained model
    assert abs(fast - exact) <= 0.002 + 1e-9

"""The demo, on few images: it writes what it promises, and a second run does not train again."""

import json

import pytest
import torch

from tools.demo.demo import METRICS, demo_config, run_demo

pytestmark = pytest.mark.slow
PICTURES = ('detections.png', 'training_curve.png', 'attention.png', 'explorer.html')


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('demo')
    return work_dir, run_demo(work_dir, num_train=32, num_val=24)


def test_it_leaves_metrics_checkpoint_and_pictures(demo):
    work_dir, metrics = demo
    assert metrics == json.loads((work_dir / 'metrics.json').read_text())
    assert set(metrics) == {'trained', 'finished'}
    assert all(set(values) == set(METRICS) for values in metrics.values())
    assert metrics['finished']['AP50'] > 0.5  # the checkpoint that ships is a trained one
    assert (work_dir / 'epoch_3.pth').is_file()
    for name in PICTURES:
        assert (work_dir / name).stat().st_size > 10_000, name


def test_a_second_run_does_not_train_again(demo, capfd):
    work_dir, metrics = demo
    kept = [work_dir / 'epoch_3.pth', *sorted((work_dir / 'shapes').rglob('*.*'))]
    before = [path.stat().st_mtime_ns for path in kept]
    (work_dir / 'attention.png').unlink()
    assert run_demo(work_dir, num_train=32, num_val=24) == metrics
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert (work_dir / 'attention.png').is_file()
    assert 'epoch_3.pth already exists' in capfd.readouterr().out.replace('\n', '')


def test_an_interrupted_training_is_resumed(demo, capfd):
    work_dir, _ = demo
    before = torch.load(work_dir / 'epoch_3.pth', weights_only=True)['state_dict']
    (work_dir / 'epoch_3.pth').unlink()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    run_demo(work_dir, num_train=32, num_val=24)
    assert 'resumed epoch: 2' in capfd.readouterr().out
    after = torch.load(work_dir / 'epoch_3.pth', weights_only=True)['state_dict']
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_it_all_lies_in_the_work_directory(tmp_path):
    config = demo_config(tmp_path)
    assert config.work_dir == str(tmp_path)
    assert config.train_dataloader.dataset.data_root == f'{tmp_path}/shapes/'

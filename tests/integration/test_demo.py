"""The demo, on few images: it leaves what it promises, and a second run does nothing again."""

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
    for name in ('start', 'trained'):
        assert metrics[name] == json.loads((work_dir / f'metrics_{name}.json').read_text())
        assert set(metrics[name]) == set(METRICS)
    assert metrics['start']['AP50'] > 0.5  # the start that ships is a trained one
    assert (work_dir / 'epoch_3.pth').is_file()
    for name in PICTURES:
        assert (work_dir / name).stat().st_size > 10_000, name


def test_a_second_run_does_nothing_again(demo):
    work_dir, metrics = demo

    def times():
        return {path: path.stat().st_mtime_ns for path in work_dir.rglob('*.*') if path.suffix != '.log'}

    before = times()
    assert run_demo(work_dir, num_train=32, num_val=24) == metrics
    assert times() == before


def test_what_is_missing_is_made_again(demo):
    work_dir, metrics = demo
    (work_dir / 'attention.png').unlink()
    (work_dir / 'metrics_trained.json').unlink()
    trained = (work_dir / 'epoch_3.pth').stat().st_mtime_ns
    assert run_demo(work_dir, num_train=32, num_val=24) == metrics
    assert (work_dir / 'attention.png').is_file()
    assert (work_dir / 'epoch_3.pth').stat().st_mtime_ns == trained


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

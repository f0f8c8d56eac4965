"""AP by epoch is read from mmengine's logs as they are, resumed and cut-off ones included."""

import json

import cv2
import pytest

from mmcondetr.errors import UserError
from mmcondetr.visualization.curves import Curve, plot_convergence, read_curve


def write_log(path, values, first=1, epochs=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, value in enumerate(values, start=first):
        train = dict(lr=1e-4, loss=3.2, iter=10 * number, step=10 * number)
        lines += [dict(train, epoch=number) if epochs else train, {'coco/bbox_mAP': value, 'time': 0.1, 'step': number}]
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    return path


def test_a_work_directory(tmp_path):
    write_log(tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json', [0.1, 0.2])
    assert read_curve(tmp_path / 'run') == Curve('run', 'epoch', (1, 2), (0.1, 0.2))
    log = tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    assert read_curve(log, name='DETR') == Curve('DETR', 'epoch', (1, 2), (0.1, 0.2))
    assert read_curve(log).name == 'run'


def test_a_resumed_run_is_one_curve(tmp_path):
    write_log(tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json', [0.1, 0.2, 0.25])
    write_log(tmp_path / '20260102_000000' / 'vis_data' / 'scalars.json', [0.3, 0.4], first=3)
    assert read_curve(tmp_path)[2:] == ((1, 2, 3, 4), (0.1, 0.2, 0.3, 0.4))


def test_a_cut_off_last_line_is_left_out(tmp_path):
    log = write_log(tmp_path / 'scalars.json', [0.1, 0.2])
    log.write_text(log.read_text()[:-9])
    with pytest.warns(UserWarning, match='cut short'):
        assert read_curve(log).values == (0.1,)


@pytest.mark.parametrize(
    'content, message',
    [
        ('', "no value of 'coco/bbox_mAP'. It has: no evaluation at all"),
        ('{"loss": 1.0, "step": 1}\n', 'no evaluation at all'),
        ('{"coco/bbox_mAP_50": 0.1, "step": 1}\n', 'It has: coco/bbox_mAP_50'),
        ('not json\n{"step": 1}\n', 'line 1 is not JSON'),
        ('not json', 'line 1 is not JSON'),
        ('[1, 2]\n', 'line 1 is no JSON object'),
    ],
)
def test_logs_that_are_none(tmp_path, content, message):
    (tmp_path / 'scalars.json').write_text(content)
    with pytest.raises(UserError, match=message):
        read_curve(tmp_path / 'scalars.json')


def test_missing_logs(tmp_path):
    with pytest.raises(UserError, match="none' does not exist"):
        read_curve(tmp_path / 'none')
    with pytest.raises(UserError, match='There is no vis_data/scalars.json in'):
        read_curve(tmp_path)
    (tmp_path / 'binary.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(UserError, match='cannot be read'):
        read_curve(tmp_path / 'binary.json')


def test_epochs_and_iterations_do_not_mix(tmp_path):
    by_iteration = read_curve(write_log(tmp_path / 'a.json', [0.1, 0.2], epochs=False))
    assert by_iteration.unit == 'iteration'
    with pytest.raises(UserError, match='do not go into one plot'):
        plot_convergence([by_iteration, Curve('b', 'epoch', (1,), (0.1,))], tmp_path / 'x.png')


def test_the_command_plots_several_runs(tmp_path, run_tool):
    for name, values in (('conditional', [0.1, 0.3, 0.4]), ('detr', [0.0, 0.05, 0.1])):
        write_log(tmp_path / name / '20260101_000000' / 'vis_data' / 'scalars.json', values)
    done = run_tool('plot_convergence', 'conditional', 'detr', '--out', 'figure.png', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'conditional: last 40.0 at epoch 3, best 40.0 at epoch 3' in done.stdout
    assert cv2.imread(str(tmp_path / 'figure.png')).std() > 10

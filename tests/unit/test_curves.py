"""AP by epoch is read from mmengine's logs, including those of resumed and interrupted runs."""

import json
import os

import cv2
import pytest
from matplotlib.figure import Figure

from mmcondetr.errors import UserError
from mmcondetr.visualization.curves import METRIC, Curve, _draw, describe, plot_convergence, read_curve


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


def test_a_run_started_anew_leaves_nothing_of_the_one_before(tmp_path):
    write_log(tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json', [0.1, 0.2, 0.25, 0.3])
    write_log(tmp_path / '20260102_000000' / 'vis_data' / 'scalars.json', [0.05, 0.15])
    assert read_curve(tmp_path)[2:] == ((1, 2), (0.05, 0.15))
    assert read_curve(tmp_path, 'loss').steps == (10, 20)
    write_log(tmp_path / '20260103_000000' / 'vis_data' / 'scalars.json', [0.2], first=2)  # resumed
    assert read_curve(tmp_path)[2:] == ((1, 2), (0.05, 0.2))
    assert read_curve(tmp_path, 'loss').steps == (10, 20)


def test_a_run_started_anew_that_was_not_evaluated_yet(tmp_path):
    write_log(tmp_path / '20260101_000000' / 'vis_data' / 'scalars.json', [0.1, 0.2])
    log = write_log(tmp_path / '20260102_000000' / 'vis_data' / 'scalars.json', [0.05])
    log.write_text(log.read_text().splitlines()[0])
    with pytest.raises(UserError, match="no value of 'coco/bbox_mAP' since training was started anew"):
        read_curve(tmp_path)


def test_a_cut_off_last_line_is_left_out(tmp_path):
    log = write_log(tmp_path / 'scalars.json', [0.1, 0.2])
    log.write_text(log.read_text()[:-9])
    with pytest.warns(UserWarning, match='is incomplete'):
        assert read_curve(log).values == (0.1,)


@pytest.mark.parametrize(
    'content, message',
    [
        ('', "no value of 'coco/bbox_mAP'. It has: no evaluation"),
        ('{"loss": 1.0, "step": 1}\n', 'but no evaluation'),
        ('{"coco/bbox_mAP_50": 0.1, "step": 1}\n', 'It has: coco/bbox_mAP_50'),
        ('not json\n{"step": 1}\n', 'line 1 is not JSON'),
        ('not json', 'line 1 is not JSON'),
        ('[1, 2]\n', 'line 1 is not a JSON object'),
        ('[' * 100_000, 'line 1 is not JSON'),
        ('{"coco/bbox_mAP": "abc", "step": 1}\n', "'coco/bbox_mAP' must be a number, not 'abc'"),
        ('{"coco/bbox_mAP": [1], "step": 1}\n', "'coco/bbox_mAP' must be a number"),
        ('{"coco/bbox_mAP": 0.5}\n', "has no 'step'"),
        ('{"coco/bbox_mAP": 0.5, "step": 1e999}\n', "'step' must be a number, not inf"),
        ('{"coco/bbox_mAP": 0.5, "step": 1' + 400 * '0' + '}\n', "'step' must be a number, not 1000"),
        ('{"coco/bbox_mAP": 0.5, "step": 1, "iter": "x"}\n', "'iter' must be a number, not 'x'"),
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


@pytest.mark.skipif(os.name != 'posix', reason='about pipes and devices')
@pytest.mark.parametrize('kind', ['pipe', 'device'])
def test_a_log_that_is_no_file_is_not_read(tmp_path, kind):
    log = tmp_path / '20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    os.mkfifo(log) if kind == 'pipe' else log.symlink_to('/dev/zero')
    with pytest.raises(UserError, match='scalars.json. is not a file'):
        read_curve(tmp_path)


def test_epochs_and_iterations_do_not_mix(tmp_path):
    by_iteration = read_curve(write_log(tmp_path / 'a.json', [0.1, 0.2], epochs=False))
    assert by_iteration.unit == 'iteration'
    with pytest.raises(UserError, match='cannot be plotted together'):
        plot_convergence([by_iteration, Curve('b', 'epoch', (1,), (0.1,))], tmp_path / 'x.png')


@pytest.mark.parametrize('steps', [(3,), (2, 3), (10, 20, 30)])
def test_the_axis_counts_whole_epochs(steps):
    figure = Figure()
    axes = figure.subplots()
    _draw(axes, METRIC, [Curve('run', 'epoch', steps, tuple(0.1 for _ in steps))])
    figure.draw_without_rendering()
    shown = [float(label.get_text()) for label in axes.get_xticklabels() if label.get_text()]
    low, high = axes.get_xlim()
    inside = [value for value in shown if low <= value <= high]
    assert inside and all(value.is_integer() for value in inside)


def test_the_command_plots_several_runs(tmp_path, run_tool):
    for name, values in (('conditional', [0.1, 0.3, 0.4]), ('detr', [0.0, 0.05, 0.1])):
        write_log(tmp_path / name / '20260101_000000' / 'vis_data' / 'scalars.json', values)
    done = run_tool('plot_convergence', 'conditional', 'detr', '--out', 'figure.png', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'conditional: last 40.0 at epoch 3, best 40.0 at epoch 3' in done.stdout
    assert cv2.imread(str(tmp_path / 'figure.png')).std() > 10


def test_a_loss_is_no_percentage_counts_iterations_and_is_best_where_it_is_least(tmp_path):
    lines = [dict(loss=loss, lr=1e-4, epoch=step // 2, iter=step, step=step) for step, loss in ((1, 9), (2, 4), (3, 5))]
    lines.insert(2, {'coco/bbox_mAP': 0.3, 'step': 1})
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    curve = read_curve(tmp_path / 'run' / 'scalars.json', 'loss', 'run')
    assert curve == Curve('run', 'iteration', (1, 2, 3), (9.0, 4.0, 5.0))
    assert describe(curve, 'loss') == 'run: last 5 at iteration 3, best 4 at iteration 2'
    rate = read_curve(tmp_path / 'run' / 'scalars.json', 'lr', 'run')
    assert describe(rate, 'lr') == 'run: last 0.0001 at iteration 3'
    assert read_curve(tmp_path / 'run' / 'scalars.json').unit == 'epoch'


def test_loss_and_ap_in_one_picture(tmp_path, run_tool):
    lines = []
    for step in range(1, 5):
        lines += [dict(loss=9 / step, epoch=step, iter=10 * step, step=10 * step), {'coco/bbox_mAP': 0.1, 'step': step}]
    log = tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(map(json.dumps, lines)))
    done = run_tool('plot_convergence', 'run', '--metric', 'loss', 'coco/bbox_mAP', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'loss, run: last 2.25 at iteration 40, best 2.25 at iteration 40' in done.stdout
    assert 'coco/bbox_mAP, run: last 10.0 at epoch 4, best 10.0 at epoch 1' in done.stdout
    picture = cv2.imread(str(tmp_path / 'convergence.png'))
    assert picture.shape[0] > picture.shape[1]  # one panel below the other

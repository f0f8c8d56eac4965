"""The convergence tool: configs of equal size, a report that can be checked by hand, runs that are not repeated."""

import json
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmcondetr.checkpoints.files import load_file
from mmcondetr.compat.config_scope import config_root
from mmcondetr.engine.config import find_config
from mmcondetr.errors import UserError
from tools.convergence import command, results, timing
from tools.convergence import report as convergence_report
from tools.convergence import runs as convergence

START = str(config_root() / 'shapes/conditional-detr_r18_small_shapes-start.safetensors')
BASE = Config.fromfile(find_config(convergence.BASE))
ROOT = Path(__file__).resolve().parents[2]


def run(system, seed, ap, epochs=4, **fields):
    return (
        dict(
            system=system,
            seed=seed,
            epochs=epochs,
            base=convergence.fingerprint(BASE),
            backbone=None,
            steps=[1, 2, 3, 4][:epochs],
            ap=ap,
        )
        | fields
    )


RUNS = [
    run('detr', 0, [0.0, 0.1, 0.2, 0.3]),
    run('detr', 1, [0.0, 0.1, 0.1, 0.3]),
    run('conditional-detr', 0, [0.2, 0.3, 0.4, 0.5]),
    run('conditional-detr', 1, [0.1, 0.2, 0.4, 0.6]),
]


@pytest.mark.parametrize('system', convergence.SYSTEMS)
def test_every_system_has_the_bases_sizes_data_and_budget(system):
    config = convergence.system_config(system, BASE, epochs=12, seed=3)
    for name in ('train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper'):
        assert config[name] == BASE[name]
    assert config.randomness.seed == 3 and config.load_from is None
    assert config.train_cfg.max_epochs == 12 and config.param_scheduler[1].milestones == [10]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
        small = MODELS.build(BASE.model)
    assert model.query_embedding.weight.shape[0] == small.query_embedding.weight.shape[0]
    assert len(model.encoder.layers) == len(small.encoder.layers)
    assert len(model.decoder.layers) == len(small.decoder.layers)
    assert model.encoder.embed_dims == 128 if hasattr(model.encoder, 'embed_dims') else True
    count, base_count = (sum(value.numel() for value in net.parameters()) for net in (model, small))
    assert count < 2.2 * base_count if system == 'full-transform' else 0.8 < count / base_count < 1.2


def test_other_classes_than_the_shapes_reach_head_and_background():
    base = Config(BASE._cfg_dict.to_dict())
    base.model.bbox_head.num_classes = 3
    head = convergence.system_config('or', base, 12, 0).model.bbox_head
    assert head.num_classes == 3 and head.loss_cls.class_weight == [1.0, 1.0, 1.0, 0.1]


@pytest.mark.parametrize('system', ['detr', 'conditional-detr', 'dab-detr', 'deformable-detr', 'or-fl'])
def test_every_system_can_start_from_the_shipped_backbone(system):
    path = convergence.check_backbone(START, BASE)
    config = convergence.system_config(system, BASE, 12, 0, path)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
        model.init_weights()
    given = load_file(START)['state_dict']
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, given[f'backbone.{name}'].to(value.dtype), rtol=0, atol=0)


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path):
    path = tmp_path / 'other.pth'
    weights = {name: value for name, value in load_file(START)['state_dict'].items() if name != 'backbone.bn1.bias'}
    torch.save(weights, path)
    with pytest.raises(UserError, match=r"--backbone: checkpoint 'nope.pth' does not exist"):
        convergence.check_backbone('nope.pth', BASE)
    with pytest.raises(UserError, match=r"other.pth': 'backbone.bn1.bias' is missing"):
        convergence.check_backbone(str(path), BASE)
    torch.save(dict(weights, **{'backbone.bn1.bias': torch.zeros(7)}), path)
    with pytest.raises(UserError, match=r"'backbone.bn1.bias' has shape \(7,\), and .* of shape \(32,\)"):
        convergence.check_backbone(str(path), BASE)


def test_report_by_hand():
    report = convergence_report.summarise(RUNS, targets=[0.2, 0.3])
    systems = report['systems']
    assert list(systems) == ['detr', 'conditional-detr'] and report['targets'] == [0.2, 0.3]
    assert systems['detr']['epochs_to_targets']['0.2']['values'] == pytest.approx([3, 3.5])
    assert systems['conditional-detr']['epochs_to_targets']['0.2']['values'] == [1, 2]
    assert systems['conditional-detr']['faster_to_targets']['0.2'] == pytest.approx(3.25 / 1.5)
    assert systems['conditional-detr']['faster_to_targets']['0.3'] == pytest.approx(4 / 2.25)
    assert systems['conditional-detr']['final_ap']['mean'] == pytest.approx(0.55)
    assert systems['conditional-detr']['epochs_to_detrs_final_ap']['values'] == pytest.approx([2, 2.5])
    assert systems['conditional-detr']['faster_to_detrs_final_ap'] == pytest.approx(4 / 2.25)
    detr, conditional = convergence_report.table(report).splitlines()[2:]
    assert detr == '| detr | 2 | 0.300 ± 0.000 | 3.0, 3.5 | 4.0, 4.0 | - |'
    assert (
        conditional == '| conditional-detr | 2 | 0.550 ± 0.071 | 1.0, 2.0 (2.2x) | 2.0, 2.5 (1.8x) | 2.0, 2.5 (1.8x) |'
    )


def test_a_run_that_was_stopped_counts_as_far_as_it_went(tmp_path):
    stopped = run('conditional-detr', 2, [0.1, 0.3], steps=[1, 2])
    report = convergence_report.summarise([*RUNS, stopped], targets=[0.2, 0.4])
    system = report['systems']['conditional-detr']
    assert system['trained'] == [4, 4, 2] and system['final_ap']['values'] == [0.5, 0.6]
    assert system['epochs_to_targets']['0.2']['values'] == [1, 2, 1.5] and system['epochs_to_targets']['0.4'] is None
    lines = convergence_report.table(report).splitlines()
    assert lines[0].startswith('| system | seeds | epochs trained | AP at the end |')
    assert lines[3].startswith(
        '| conditional-detr | 3 | 4, 4, 2 | 0.550 ± 0.071 | 1.0, 2.0, 1.5 (2.2x) | stopped before |'
    )
    alone = convergence_report.summarise([stopped], targets=[0.2])
    assert alone['systems']['conditional-detr']['final_ap'] is None
    assert convergence_report.table(alone).splitlines()[2] == '| conditional-detr | 1 | 2 | - | 1.5 | - |'
    convergence_report.plot([*RUNS, stopped], tmp_path / 'out.png', [0.2])


def test_a_stopped_run_is_continued_and_a_longer_one_read(tmp_path):
    result = tmp_path / 'detr_seed0.json'
    result.write_text(json.dumps(run('detr', 0, [0.0, 0.1], steps=[1, 2])))
    missing = Path('does/not/exist.py')
    assert convergence.run_once('detr', BASE, 4, 0, tmp_path, missing, stop_after=2)['ap'] == [0.0, 0.1]
    with pytest.raises(UserError, match='training ended with exit code'):
        convergence.run_once('detr', BASE, 4, 0, tmp_path, missing, stop_after=3)
    config = Config.fromfile(tmp_path / 'detr_seed0/run.py')
    assert config.train_cfg.max_epochs == 3 and config.param_scheduler[1].milestones == [3]
    config = convergence.system_config('detr', BASE, 24, 0, stop_after=5)
    assert config.train_cfg.max_epochs == 5 and config.param_scheduler[1].milestones == [20]
    assert convergence.system_config('detr', BASE, 4, 0, stop_after=9).train_cfg.max_epochs == 4


def test_another_comparisons_detr_stands_beside_the_runs(tmp_path):
    reference = convergence_report.beside([dict(run, base='conditional-detr_r18_other 01234567') for run in RUNS])
    assert [run['system'] for run in reference] == ['detr (other)'] * 2
    own = [run('detr', 0, [0.0, 0.0], steps=[1, 2]), *RUNS[2:]]
    report = convergence_report.summarise(own, [0.2], reference=reference)
    assert list(report['systems']) == ['detr (other)', 'detr', 'conditional-detr']
    assert report['systems']['conditional-detr']['faster_to_targets']['0.2'] == pytest.approx(3.25 / 1.5)
    lines = convergence_report.table(report).splitlines()
    assert lines[2] == '| detr (other) | 2 | 4, 4 | 0.300 ± 0.000 | 3.0, 3.5 | - |'
    assert lines[3] == '| detr | 1 | 2 | - | stopped before | - |'
    convergence_report.plot([*own, *reference], tmp_path / 'out.png', [0.2])
    with pytest.raises(UserError, match='none.json. cannot be read: No such file'):
        results.read_report(tmp_path / 'none.json')


def test_measured_steps_are_a_column_of_the_report():
    seconds = {'detr': [0.4, 0.2, 0.3], 'conditional-detr': [0.2, 0.2]}
    lines = convergence_report.table(convergence_report.summarise(RUNS, [0.2], seconds)).splitlines()
    assert lines[0].startswith('| system | seeds | time of an epoch | AP at the end |')
    assert lines[2].startswith('| detr | 2 | 1.50 (0.30 s a step) | 0.300 ± 0.000 | 3.0, 3.5 |')
    assert lines[3].startswith('| conditional-detr | 2 | 1.00 (0.20 s a step) |')
    assert '| 1.0, 2.0 (2.2x, in time 3.2x) |' in lines[3]  # 3.25 / 1.5 and 1.5 times that
    alone = convergence_report.summarise(RUNS, [0.2], {'detr': [0.3]})  # nothing to compare it with
    assert 'time of' not in convergence_report.table(alone)


def test_steps_are_timed_in_turn(tmp_path):
    base = Config(BASE._cfg_dict.to_dict())
    base.train_dataloader.batch_size = 2
    base.train_dataloader.dataset.update(data_root=str(tmp_path), generate=dict(num_train=4, num_val=1))
    larger = Config(base._cfg_dict.to_dict())
    larger.train_dataloader.batch_size = 4
    systems = {'conditional-detr_2-groups': base, 'detr': base, 'detr (larger)': larger}
    seconds = timing.time_steps({name: (name.split()[0], base) for name, base in systems.items()}, repeats=1)
    assert list(seconds) == list(systems)
    assert all(len(own) == 1 and own[0] > 0 for own in seconds.values())


def test_the_time_of_an_epoch_counts_images():
    """DETR in batches of 16 beside another system in batches of 4, four times as many steps."""
    theirs = [dict(run, base='conditional-detr_r18_small_1xb16-24e_shapes 01234567') for run in RUNS[:2]]
    ours = [dict(run, base='conditional-detr_r18_small_1xb4-24e_shapes') for run in RUNS[2:]]
    reference = convergence_report.beside(theirs)
    seconds = {'conditional-detr': [0.1], reference[0]['system']: [0.3]}
    systems = convergence_report.summarise(ours, [0.2], seconds, reference)['systems']
    assert systems[reference[0]['system']]['epoch_ratio'] == pytest.approx(0.75)
    assert systems['conditional-detr']['faster_in_time']['0.2'] == pytest.approx(0.75 * 3.25 / 1.5)


def test_a_target_that_one_seed_missed_has_no_mean():
    report = convergence_report.summarise(RUNS, targets=[0.55])
    assert report['systems']['conditional-detr']['epochs_to_targets']['0.55'] is None
    assert report['systems']['detr']['faster_to_targets']['0.55'] is None
    assert convergence_report.table(report).splitlines()[2].count('not reached') == 1


def test_one_seed_and_no_detr():
    report = convergence_report.summarise([run('csq-p', 0, [0.1, 0.2, 0.3, 0.4])], targets=[0.2])
    assert convergence_report.table(report).splitlines()[2] == '| csq-p | 1 | 0.400 | 2.0 | - |'


def test_a_finished_run_is_read_and_one_of_another_budget_or_start_refused(tmp_path):
    (tmp_path / 'detr_seed0.json').write_text(json.dumps(RUNS[0]))
    no_training = Path('does/not/exist.py')
    assert convergence.run_once('detr', BASE, 4, 0, tmp_path, no_training) == RUNS[0]
    with pytest.raises(UserError, match="field 'epochs' is 4, but 5 is requested"):
        convergence.run_once('detr', BASE, 5, 0, tmp_path, no_training)
    with pytest.raises(UserError, match="field 'backbone' is None, but .*start.safetensors [0-9a-f]{8} is requested"):
        convergence.run_once('detr', BASE, 4, 0, tmp_path, no_training, START)
    other = Config.fromfile(find_config('conditional-detr_r18_small_1xb8-60e_bccd'))
    with pytest.raises(UserError, match="field 'base' is .*_shapes [0-9a-f]{8}, but .*_bccd [0-9a-f]{8} is requested"):
        convergence.run_once('detr', other, 4, 0, tmp_path, no_training)
    moved = Config.fromfile(find_config(convergence.BASE))  # of the same name, and of other data
    moved.train_dataloader.dataset.data_root = 'elsewhere/'
    with pytest.raises(UserError, match="field 'base' is .*_shapes [0-9a-f]{8}, but .*_shapes [0-9a-f]{8} is req"):
        convergence.run_once('detr', moved, 4, 0, tmp_path, no_training)
    (tmp_path / 'detr_seed0.json').write_text('{"system"')
    with pytest.raises(UserError, match='detr_seed0.json. is no JSON .*delete it to train'):
        convergence.run_once('detr', BASE, 4, 0, tmp_path, no_training)


def test_a_detr_that_learned_nothing_is_compared_to_by_targets_alone():
    report = convergence_report.summarise([run('detr', 0, [0.0, 0.001, 0.001, 0.003]), RUNS[2]], targets=[0.1, 0.2])
    assert report['detrs_final_ap'] is None
    assert report['systems']['conditional-detr']['faster_to_detrs_final_ap'] is None
    assert convergence_report.table(report).splitlines()[3] == '| conditional-detr | 1 | 0.500 | 0.5 | 1.0 | - |'
    assert convergence_report.summarise(RUNS, [0.2])['detrs_final_ap'] == pytest.approx(0.3)


def test_an_interrupted_run_does_not_go_on_under_other_arguments(tmp_path):
    with pytest.raises(UserError, match='output.txt'):
        convergence.run_once('detr', BASE, 4, 0, tmp_path, tmp_path / 'none.py')
    with pytest.raises(UserError, match="asked.json: field 'epochs' is 4, but 5 is requested"):
        convergence.run_once('detr', BASE, 5, 0, tmp_path, tmp_path / 'none.py')


@pytest.mark.parametrize('fields', [dict(epochs=3), dict(base='other'), dict(backbone='start.pth 01234567')])
def test_runs_of_another_budget_data_or_start_are_not_compared(fields):
    with pytest.raises(UserError, match=f"cannot be compared: field '{next(iter(fields))}'"):
        convergence_report.summarise([*RUNS, run('csq-p', 0, [0.1, 0.2, 0.3], **fields)], [0.2])


def test_a_system_that_is_no_longer_known_is_reported_last(tmp_path):
    runs = [run('mine', 0, [0.1, 0.2, 0.3, 0.4]), *RUNS]
    assert list(convergence_report.summarise(runs, [0.2])['systems']) == ['detr', 'conditional-detr', 'mine']
    convergence_report.plot(runs, tmp_path / 'out.png', [0.2])


def test_a_base_of_another_detector_is_refused():
    base = Config.fromfile(find_config('detr_r18_small_1xb16-24e_shapes'))
    with pytest.raises(UserError, match='--base: config .*detr_r18.*is not a Conditional DETR'):
        convergence.system_config('csq-p', base, 4, 0)


def test_runs_of_another_machine_count_as_trained(tmp_path, monkeypatch):
    """Whose data lie elsewhere; a run that the work directory has, too, stays as it is there."""
    for folder in ('here/shapes/', '/there/shapes/', 'here/other/'):
        monkeypatch.setenv('SHAPES_ROOT', folder)
        base = Config.fromfile(find_config(convergence.BASE))
        assert (convergence.fingerprint(base) == convergence.fingerprint(BASE)) == ('shapes' in folder)
    work_dir = tmp_path / 'runs'
    results.adopt(convergence_report.summarise(RUNS[:1], [0.2]) | dict(runs=RUNS[:1]), work_dir)
    others = [run('detr', 0, [0.9] * 4), RUNS[2]]
    seconds = {'detr': [0.4, 0.2, 0.3], 'conditional-detr': [0.2, 0.2]}
    results.adopt(convergence_report.summarise(others, [0.2], seconds) | dict(runs=others), work_dir)
    assert results.read_runs(work_dir) == [RUNS[2], RUNS[0]]
    assert results.step_seconds(work_dir) == {'detr': [0.3], 'conditional-detr': [0.2]}
    assert convergence.run_once('conditional-detr', BASE, 4, 0, work_dir, tmp_path / 'none.py') == RUNS[2]


@pytest.mark.parametrize('name', ['shapes', 'ablations', 'small-batches', 'stretched', 'stretched-60', 'bccd'])
def test_committed_comparisons_can_be_continued(name, monkeypatch):
    monkeypatch.setenv('BCCD_ROOT', 'anywhere/bccd/')
    for one in results.read_report(ROOT / f'docs/convergence/{name}/convergence.json')['runs']:
        base = Config.fromfile(find_config(one['base'].split()[0]))
        assert one['base'] == convergence.fingerprint(base)
        assert one['backbone'] == convergence.comparison(base, 24, START)['backbone']


def test_earlier_runs_are_checked_before_any_training(tmp_path, monkeypatch, capsys):
    """And nothing of a comparison that is refused gets into the work directory."""
    work_dir = tmp_path / 'runs'

    def refused(*options: str) -> str:
        monkeypatch.setattr('sys.argv', ['convergence.py', '--epochs', '4', '--work-dir', str(work_dir), *options])
        assert command.main() == 2  # a UserError
        return capsys.readouterr().err

    report = tmp_path / 'convergence.json'
    other = [run('detr', 0, [0.1] * 4, base='other 01234567')]
    report.write_text(json.dumps(dict(runs=other, systems={})))
    assert "cannot be compared: field 'base' is" in refused('--earlier', str(report))
    report.write_text(json.dumps(dict(runs=[dict(setting='6 groups', seed=0, ap=[0.1])])))
    for option in ('--earlier', '--reference'):
        assert 'is not the convergence.json of a comparison' in refused(option, str(report), '--report-only')
        assert 'cannot be read: Is a directory' in refused(option, str(tmp_path), '--report-only')
    report.write_text('# README')
    assert 'is no JSON' in (said := refused('--earlier', str(report))) and 'delete' not in said
    assert not work_dir.exists()


def test_failed_training_names_its_output(tmp_path):
    with pytest.raises(UserError, match='output.txt'):
        convergence.run_once('detr', BASE, 4, 0, tmp_path, tmp_path / 'none.py')
    assert not (tmp_path / 'detr_seed0.json').exists()


def test_plot_and_empty_folder(tmp_path):
    convergence_report.plot(RUNS, tmp_path / 'out.png', [0.2])
    assert (tmp_path / 'out.png').stat().st_size > 5000
    with pytest.raises(UserError, match='no finished run'):
        results.read_runs(tmp_path)


def test_unknown_system_names_the_known():
    with pytest.raises(UserError, match="'yolo' is not one of detr, conditional-detr"):
        convergence.system_config('yolo', BASE, 4, 0)


def test_trials_say_when_an_ap_was_reached_straight_between_epochs():
    text = convergence_report.trials_table(
        [dict(setting='one', seed=2, ap=[0.1, 0.35, 0.5]), dict(setting='two', seed=0, ap=[0.3, 0.2])]
    )
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    assert rows[0][-2:] == ['epochs to AP 0.3', 'epochs to AP 0.4']
    assert rows[2] == ['one', '2', '0.100', '0.350', '0.500', '1.8', '2.3']
    assert rows[3] == ['two', '0', '0.300', '0.200', '-', '1.0', '-']


def test_recipes_are_a_row_each_with_the_spread_of_their_seeds():
    def run(config, seed, ap):
        return dict(config=config, what='w', steps=1560, seed=seed, ap=ap, ap50=0.7, ap75=0.5)

    text = convergence_report.recipes_table(
        [run('a/x.py', 0, 0.4), run('y.py', 0, 0.3), run('a/x.py', 1, 0.5)], str.upper
    )
    assert '| A/X.PY | w | 1,560 | 2 | 0.450 ± 0.071 | 0.700 ± 0.000 | 0.500 ± 0.000 |' in text.splitlines()
    assert '| Y.PY | w | 1,560 | 1 | 0.300 | 0.700 | 0.500 |' in text.splitlines()

"""The benchmark's parts: plans, tables, and one run at toy size."""

from __future__ import annotations

import json
import subprocess
from argparse import Namespace

import numpy as np
import pytest
from exported import metadata

from mmcondetr.errors import UserError
from mmcondetr.runtime.metadata import KEY
from mmcondetr.runtime.sessions import INPUTS, OUTPUTS
from tools.benchmark import command, deployment, exporting, report
from tools.benchmark.measuring import BenchmarkError, measure
from tools.benchmark.plans import PARTS, Cell, plan
from tools.benchmark.workload import IMPLEMENTATIONS, Workload


def arguments(**changes) -> Namespace:
    given = dict(
        device='cpu',
        threads=2,
        models=['r50', 'r50-dc5'],
        parts=list(PARTS),
        authors=None,
        height=800,
        width=1066,
        queries=300,
        batch=None,
        growth_heights=[480, 800],
        growth_queries=[100, 300],
        deployment_batches=[1, 2],
        repeats=None,
        implementations=list(IMPLEMENTATIONS),
    )
    return Namespace(**{**given, **changes})


def test_mmdet_is_what_every_cell_compares_to():
    for device in ('cpu', 'cuda'):
        cells = plan(arguments(device=device), cpu_flags='')
        assert {cell.part for cell in cells} == set(PARTS) - ({'deployment'} if device == 'cuda' else set()) - (
            {'deployment'} if device == 'cuda' else set()
        )
        for cell in cells:
            first, *rest = cell.workloads
            reference = 'mmcondetr' if cell.part == 'groups' else 'mmdet'
            assert (first.implementation, first.precision) == (reference, 'fp32') and rest
            assert len({(w.model, w.height, w.width, w.batch, w.queries, w.mode) for w in cell.workloads}) == 1


def test_bf16_on_a_cpu_only_where_it_has_instructions_for_it():
    def precisions(device, flags):
        return {w.precision for cell in plan(arguments(device=device), flags) for w in cell.workloads}

    assert precisions('cpu', 'avx512f') == {'fp32'}
    assert precisions('cpu', 'avx512f avx512_bf16') == {'fp32', 'bf16'}
    assert precisions('cpu', 'avx512f amx_bf16') == precisions('cuda', '') == {'fp32', 'bf16'}


def test_images_grow_in_both_sides():
    sizes = [cell.workloads[0] for cell in plan(arguments(parts=['sizes']), '')]
    assert [(w.height, w.width) for w in sizes] == [(480, 640), (800, 1066)]


def test_a_chosen_implementation_is_compared_with_mmdet():
    (cell,) = plan(arguments(parts=['training'], models=['r50'], implementations=['mmcondetr']), '')
    assert [w.implementation for w in cell.workloads] == ['mmdet', 'mmcondetr']


def test_mmdet_alone_is_not_measured_and_growth_is_that_of_the_model_asked_for():
    parts = {cell.part for cell in plan(arguments(implementations=['mmcondetr']), '')}
    assert parts == {'inference', 'training', 'split'}
    cells = plan(arguments(models=['r50-dc5'], parts=['sizes', 'queries']), '')
    assert {workload.model for cell in cells for workload in cell.workloads} == {'r50-dc5'}


@pytest.mark.parametrize(
    'field, value', [('implementation', 'detrex'), ('model', 'r101'), ('precision', 'int8'), ('batch', 0)]
)
def test_what_cannot_be_measured_is_refused(field, value):
    with pytest.raises(ValueError, match=f'{field} must be .* got .?{value}'):
        Workload(**{'implementation': 'mmdet', field: value})


def record(implementation, seconds, peak=2, precision='fp32', **fields):
    workload = Workload(implementation, precision=precision, **fields).asdict()
    return dict(workload=workload, seconds=seconds, memory=dict(peak=peak * 2**30, before=2**30))


def results():
    missing = dict(workload=Workload('transformers').asdict(), unavailable='transformers is not installed')
    environment = dict(
        device='A CPU',
        kind='cpu',
        threads=2,
        instruction_sets=['avx2'],
        python='3.11.7',
        versions=dict(torch='2.13.0'),
        peak_gflops=100.0,
    )
    inference = [
        record('mmdet', [2.0, 4.0, 3.0]),
        missing,
        record('mmcondetr', [2.1, 1.8, 2.0]),
        record('mmcondetr-optimized', [1.0, 1.2, 1.1]),
    ]
    training = [record('mmdet', [10.0], 4, mode='training'), record('mmcondetr', [9.0], 3, mode='training')]
    growth = [record('mmdet', [1.0], queries=100), record('mmcondetr-optimized', [0.25], queries=100)]
    split = [dict(record('mmdet', [1.0]), split=[dict(backbone=0.75, rest=0.25), dict(backbone=0.75, rest=0.25)])]
    parts = dict(inference=inference, training=training, queries=growth, split=split)
    cells = [dict(part=part, multiply_adds=10**10, records=records) for part, records in parts.items()]
    return dict(environment=environment, cells=cells)


def test_ratios_are_of_medians():
    r50, dc5 = report.ratios_table(results()).splitlines()[2:]
    assert r50 == '| r50 | 0.37 | not measured | 0.90 | 0.75 |'
    assert dc5.count('not measured') == 4


def test_goals_are_ratios_of_medians_and_what_was_not_measured_says_so():
    r50, dc5 = report.goals_table(results()).splitlines()[2:]
    assert r50 == (
        '| r50 | 0.37 (goal <= 0.50, reached) | not measured (the goal <= 0.15 is for amx_bf16) '
        '| 0.90 (goal <= 0.80, missed) | 0.75 (goal <= 0.85, reached) |'
    )
    assert dc5.count('not measured') == 4


def test_goals_hold_for_their_work_alone():
    expected = report.goals_table(results())
    other = results()
    small = [record('mmdet', [1.0], height=128), record('mmcondetr-optimized', [0.01], height=128)]
    other['cells'].append(dict(part='inference', multiply_adds=1, records=small))
    assert report.goals_table(other) == expected
    other['cells'] = other['cells'][-1:]
    assert report.goals_table(other).count('not measured') == 8


def test_an_entry_that_was_killed_keeps_its_row_of_growth():
    found = results()
    cell = next(cell for cell in found['cells'] if cell['part'] == 'queries')
    for name in ('seconds', 'memory'):
        del cell['records'][0][name]
    cell['records'][0]['unavailable'] = 'killed'
    assert '| r50 | 100 | not measured | 0.250 | not measured | not measured | 2.00 |' in report.markdown(found)


def test_the_report_names_spread_memory_and_the_share_of_the_peak():
    text = report.markdown(json.loads(json.dumps(results())))  # as it is read back
    assert '| this package after optimize_for_inference, fp32 | 1.100 | 1.000 - 1.200 | 0.37 | 2.00 | 1.00 |' in text
    assert 'not measured: transformers is not installed' in text
    assert '18 GFLOP/s, 18% of this machine' in text  # 2e10 operations in 1.1 s
    assert '| r50 | 100 | 1.000 | 0.250 | 0.25 | 2.00 | 2.00 |' in text
    assert '750 (75%) | 250 (25%)' in text


def test_versions_missing_from_the_heading_are_beside_their_entry():
    found = results()
    found['cells'][0]['records'][1] = record('transformers', [2.0])
    found['cells'][0]['records'][1]['versions'] = dict(torch='2.13.0', transformers='5.23.0')
    found['cells'][0]['records'][2]['versions'] = dict(torch='2.12.0', timm='1.0')
    text = report.markdown(found)
    assert 'ForObjectDetection, fp32 (transformers 5.23.0) |' in text
    assert 'as a config builds it, fp32 (torch 2.12.0) |' in text


def section(name: str, text: str = 'old') -> str:
    return f'{report.BEGIN.format(name)}\n{text}\n{report.END.format(name)}'


def test_a_page_gets_what_was_measured_or_the_goals_by_its_markers():
    page = f'before\n{section("benchmark")}\nbetween\n{section("goals")}\nafter\n'
    once = report.insert(page, [results()], 'page.md')
    assert once.startswith('before\n') and once.endswith('\nafter\n') and 'old' not in once
    measured, goals = once.split('between')
    assert '| r50 | 0.37 | not measured |' in measured and 'goal' not in measured
    assert 'Not measured on a GPU yet.' in measured
    assert '0.37 (goal <= 0.50, reached)' in goals and '| not measured (goal <= 0.35) |' in goals
    assert report.insert(once, [results()], 'page.md') == once
    assert 'between' not in report.insert(section('goals'), [results()], 'page.md')


def test_a_page_without_markers_is_named():
    with pytest.raises(UserError, match=r"'page\.md' must contain the line"):
        report.insert('no place', [results()], 'page.md')


def test_committed_tables_are_those_of_the_committed_numbers(root):
    listed = subprocess.run(['git', '-C', root, 'ls-files', 'benchmarks'], capture_output=True, text=True, check=False)
    files = sorted(root / name for name in listed.stdout.split() if name.endswith('.json'))  # and no user's own runs
    assert files or not (root / '.git').exists()
    for file in files:
        text = file.with_suffix('.md').read_text()
        assert text.endswith(report.markdown(json.loads(file.read_text()))), f'{file.name} is newer'
    runs = [json.loads(file.read_text()) for file in files]
    for page in (root / 'README.md', root / 'docs/performance.md', root / 'docs/training-faster.md'):
        if runs:
            assert report.insert(page.read_text(), runs, page) == page.read_text(), f'{page.name} is out of date'


def deployment_results():
    cells = []
    for model, batch in (('r50', 1), ('r50', 8), ('r50-dc5', 1)):
        fields = dict(model=model, batch=batch)
        records = [
            record('mmdet', [1.0, 1.0, 1.1], **fields),
            record('mmdet-keeping', [0.8], **fields),
            record('mmcondetr-optimized', [0.5], **fields),
            record('openvino', [0.25], 1, **fields),
            record('mmcondetr-optimized', [0.3], precision='bf16', **fields),
            record('openvino', [0.2], precision='bf16', **fields),
            record('openvino-int8', [0.16], precision='bf16', **fields),
        ]
        records[3]['versions'] = dict(openvino='2026.4.1')
        cells.append(dict(part='deployment', multiply_adds=1, load=batch / 2, records=records))
    cells[-1]['records'][-1] = dict(workload=cells[-1]['records'][-1]['workload'], unavailable='gone')
    return {**results(), 'cells': cells}


def test_exported_files_stand_beside_both_forms_of_mmdet():
    table = deployment.seconds_table(deployment_results())
    assert '| exported, in OpenVINO, fp32 | 0.250 (0.250 - 0.250) | 0.25 | 0.31 | 0.250' in table
    assert '0.160 (0.160 - 0.160) | 0.16 | 0.20 | not measured |' in table
    assert 'openvino 2026.4.1. Load average of the machine before a cell: 0.5 - 4.0.' in deployment.load_note(
        deployment_results()
    )


def test_goals_of_exported_files_name_the_form():
    fp32, bf16, int8, eager = deployment.goals_table(deployment_results()).splitlines()[2:]
    assert '0.25 (goal <= 0.40, reached): exported, in OpenVINO, fp32' in fp32
    assert bf16.count('0.20 (goal <= 0.20, reached)') == 1 and '0.20 (goal <= 0.15, missed)' in bf16
    assert '0.16 (goal <= 0.14, missed): exported with an int8 backbone' in int8 and 'not measured |' in int8
    assert eager.count('1.50 (goal <= 1.30, missed)') == 2


def test_throughput_is_by_batch():
    text = deployment.throughput_table(deployment_results())
    assert '| exported, in OpenVINO, fp32 | 4.00 | 32.00 | 1.00 | 1.00 |' in text


def test_a_page_without_exported_files_says_so():
    assert deployment.NOTHING in report.insert(section('deployment'), [results()], 'page.md')
    assert 'exported, in OpenVINO' in report.insert(section('deployment-goals'), [deployment_results()], 'page.md')


def test_files_that_lie_there_are_not_exported_again(tmp_path):
    (tmp_path / 'r50-300-int8.xml').touch()
    (cell,) = exporting.with_files([Cell('deployment', (Workload('mmdet'), Workload('openvino-int8')), 1, 1)], tmp_path)
    assert [workload.file for workload in cell.workloads] == [None, str(tmp_path / 'r50-300-int8.xml')]


@pytest.mark.slow
def test_an_exported_file_takes_its_turn_without_torch(tmp_path):
    write_stand_in(tmp_path / 'r50-10.onnx')
    small = dict(height=64, width=64, queries=10, threads=1)
    workloads = [Workload(name, **small) for name in ('mmdet', 'onnxruntime')]
    with_file = Workload('onnxruntime', **small, batch=2, file=str(tmp_path / 'r50-10.onnx'))
    theirs, missing, exported = measure([*workloads, with_file], repeats=2, say=lambda line: None)
    assert missing['unavailable'] == 'no file was exported'
    assert len(exported['seconds']) == 2 and 'onnxruntime' in exported['versions']
    assert exported['memory']['peak'] < theirs['memory']['peak'] / 2  # torch alone takes more than that


def write_stand_in(path):
    """A graph with an exported detector's inputs and outputs, whose scores are the images' means."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    kinds = dict(uint8=TensorProto.UINT8, int64=TensorProto.INT64, float32=TensorProto.FLOAT)
    shapes = dict(images=['b', 3, 'h', 'w'], valid_sizes=['b', 2], original_sizes=['b', 2])
    shapes |= dict(boxes=['b', 20, 4], scores=['b', 20], labels=['b', 20])
    values = {
        name: helper.make_tensor_value_info(name, kinds[kind], shapes[name])
        for name, kind in {**INPUTS, **OUTPUTS}.items()
    }
    constants = dict(four=np.ones((1, 20, 4), np.float32), one=np.ones((1, 20), np.float32))
    constants |= dict(to_four=np.array([-1, 1, 1]), to_one=np.array([-1, 1]), axes=np.array([1, 2, 3]))
    nodes = [
        ('Cast', ['images'], 'floats', dict(to=TensorProto.FLOAT)),
        ('ReduceMean', ['floats', 'axes'], 'mean', {}),
        ('Reshape', ['mean', 'to_four'], 'for_boxes', {}),
        ('Mul', ['for_boxes', 'four'], 'boxes', {}),
        ('Reshape', ['mean', 'to_one'], 'for_scores', {}),
        ('Mul', ['for_scores', 'one'], 'scores', {}),
        ('Cast', ['scores'], 'labels', dict(to=TensorProto.INT64)),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], **options) for kind, inputs, output, options in nodes],
        'stand-in',
        [values[name] for name in INPUTS],
        [values[name] for name in OUTPUTS],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    helper.set_model_props(model, {KEY: metadata().to_json()})
    checker.check_model(model)
    save(model, path)


@pytest.mark.slow
def test_entries_take_turns_in_processes_of_their_own():
    small = dict(height=64, width=64, queries=10, threads=1)
    spoken = []
    theirs, ours, missing = measure(
        [Workload('mmdet', **small), Workload('mmcondetr-optimized', **small), Workload('authors', **small)],
        repeats=2,
        split=True,
        say=spoken.append,
    )
    assert len(theirs['seconds']) == len(ours['seconds']) == 2
    assert [line.split()[0] for line in spoken[1:5]] == ['mmdet', 'mmcondetr-optimized'] * 2
    assert ours['memory']['peak'] >= ours['memory']['before'] > 2**20
    assert set(ours['split'][0]) == {'backbone', 'neck', 'encoder', 'decoder', 'head', 'rest'}
    assert all(value > 0 for value in ours['split'][0].values())
    assert '--authors' in missing['unavailable']


@pytest.mark.slow
def test_a_training_step_is_split_into_all_its_parts():
    small = dict(height=64, width=64, queries=10, threads=1, mode='training')
    for record in measure(
        [Workload('mmdet', **small), Workload('mmcondetr', **small)], repeats=1, split=True, say=lambda line: None
    ):
        first = record['split'][0]
        assert set(first) == {'backbone', 'neck', 'encoder', 'decoder', 'head', 'loss', 'backward', 'rest'}
        assert all(value > 0 for value in first.values())
        assert first['backward'] > first['head']


@pytest.mark.slow
def test_an_entry_that_fails_reports_why(tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\necho "no such module" >&2\nexit 3\n')
    python.chmod(0o755)
    with pytest.raises(BenchmarkError, match='code 3:\nno such module'):
        measure([Workload('mmdet', height=64, width=64)], repeats=1, pythons=dict(mmdet=str(python)))


def test_an_entry_that_is_killed_does_not_stop_the_others(tmp_path):
    """Its stand-in reports ready, does one step and then kills itself."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nread work\necho "{}"\nread do\necho \'{"seconds": 1}\'\nread do\nkill -9 $$\n')
    python.chmod(0o755)
    well = tmp_path / 'well'
    well.write_text('#!/bin/sh\nread work\necho "{}"\nwhile read do; do echo \'{"seconds": 2}\'; done\n')
    well.chmod(0o755)
    killed, other = measure(
        [Workload('mmdet'), Workload('mmcondetr')],
        repeats=3,
        say=lambda line: None,
        pythons=dict(mmdet=str(python), mmcondetr=str(well)),
    )
    assert killed['unavailable'].startswith('killed') and 'seconds' not in killed
    assert other['seconds'] == [2, 2, 2]


def test_cells_of_another_machine_are_not_kept(tmp_path):
    file = tmp_path / 'cpu.json'
    file.write_text(json.dumps(results()))
    here = results()['environment']
    assert command.cells_of_the_same_machine(file, here) == (json.loads(file.read_text())['cells'], 100.0)
    with pytest.raises(ValueError, match=r"cpu.json': environment.threads is 2, but here it is 4"):
        command.cells_of_the_same_machine(file, dict(here, threads=4))
    with pytest.raises(ValueError, match=r'environment.cpu_family is None, but here it is 25'):
        command.cells_of_the_same_machine(file, dict(here, cpu_family='25'))


def test_a_machine_without_compared_implementations_gets_no_rows_among_them():
    exported_only = dict(
        deployment_results(), environment=dict(results()['environment'], cpu_family='25', cpu_model='17')
    )
    assert '## Ratios' not in report.markdown(exported_only)
    page = '<!-- benchmark: begin -->\n<!-- benchmark: end -->\n<!-- deployment: begin -->\n<!-- deployment: end -->\n'
    page = report.insert(page, [results(), exported_only], 'page.md')
    assert page.count('Measured on A CPU') == 1 and 'OpenVINO' in page
    assert 'A CPU family 25 model 17' in report.markdown(exported_only)

"""From a folder of photos to pictures with boxes: every command, from an installed wheel, in an empty folder.

Data as COCO JSON, YOLO and Pascal VOC. The commands run one after the other in one process of the installed package,
for importing PyTorch and mmdet takes longer than any of them; that each is a console command is tested once.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from installed_wheel import Installed
from own_data_files import write_voc, write_yolo

pytestmark = pytest.mark.slow

KINDS = {'coco': 'coco', 'yolo': 'yolo', 'voc': 'voc'}  # kind -> DATA of mmcondetr init
ONE_PROCESS = [
    f'{part}_dataloader.{key}'
    for part in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]
DRIVER = """
import contextlib, io, json, sys, traceback
from mmcondetr.cli import main
done = {}
for name, arguments in json.load(open('steps.json')):
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured), contextlib.redirect_stderr(captured):
        try:
            code = main(arguments)
        except BaseException:
            code = traceback.format_exc()
    done[name] = [code, captured.getvalue()]
    json.dump(done, open('done.json', 'w'))
from mmcondetr import Detector
found = Detector('yolo.py', weights='run_yolo/epoch_2.pth', device='cpu').predict(sys.argv[1], 0.0)
found.plot('plotted.png')
print('found', len(found), found.boxes.shape)
"""


@dataclass
class Journey:
    """What the commands printed and wrote.

    Attributes:
        folder: that they ran in.
        done: name of the step -> (exit code, output).
        python: output of the lines of Python at the end.
        installed: the environment.
    """

    folder: Path
    done: dict
    python: str
    installed: Installed

    def __getitem__(self, name: str) -> str:
        """The output of a step that must have succeeded."""
        code, output = self.done[name]
        assert code == 0, f'{name}: exit code {code}\n{output[-4000:]}'
        return output

    def json(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())


def steps_of(kind: str) -> list:
    """init, check, train for two epochs of two steps, predict, analyze."""
    config, run = f'{kind}.py', f'run_{kind}'
    checkpoint = f'{run}/epoch_2.pth'
    tiny = ['--start', 'small', '--iterations', '4', '--batch-size', '2']
    options = ['--cfg-options', *ONE_PROCESS, 'default_hooks.logger.interval=1', 'train_cfg.val_interval=1']
    return [
        (f'init {kind}', ['init', KINDS[kind], '--out', config, *tiny]),
        (f'check {kind}', ['check', config, '--out', f'check_{kind}', '--samples', '1']),
        (f'train {kind}', ['train', config, '--work-dir', run, *options]),
        (f'predict {kind}', ['predict', config, checkpoint, 'photos', '--out', f'found_{kind}', '--score-threshold=0']),
        (f'analyze {kind}', ['analyze', config, checkpoint, '--out', f'analysis_{kind}']),
    ]


@pytest.fixture(scope='module')
def journey(wheel, shapes, tmp_path_factory) -> Journey:
    installed = Installed(tmp_path_factory.mktemp('journey'), wheel, shapes)
    folder = installed.cwd
    (folder / 'coco').symlink_to(shapes)
    write_yolo(shapes, folder / 'yolo')
    write_voc(shapes, folder / 'voc')
    (folder / 'photos').symlink_to(shapes / 'val')
    image = sorted((shapes / 'val').glob('*.png'))[0]
    steps = [step for kind in KINDS for step in steps_of(kind)]
    truth = ['--truth', 'coco/annotations/val.json', '--predictions', 'found_coco/predictions.json']
    model = ['yolo.py', 'run_yolo/epoch_2.pth']
    steps += [
        ('analyze files', ['analyze', *truth, '--out', 'analysis_files']),
        ('explain', ['explain', *model, str(image), '--out', 'page.html', '--score-threshold', '0', '--count', '2']),
        ('plot', ['plot-convergence', 'run_yolo', 'run_voc', '--metric', 'loss', 'coco/bbox_mAP', '--out', 'c.png']),
        ('test', ['test', *model, '--cfg-options', *ONE_PROCESS]),
    ]
    (folder / 'steps.json').write_text(json.dumps(steps))
    python = installed.run('-c', DRIVER, image)
    return Journey(folder, json.loads((folder / 'done.json').read_text()), python, installed)


@pytest.mark.parametrize('kind', KINDS)
def test_from_data_to_what_is_wrong(journey, kind):
    assert f'wrote {kind}.py' in journey[f'init {kind}']
    assert 'no errors' in journey[f'check {kind}'] and (journey.folder / f'check_{kind}' / 'data.html').is_file()
    journey[f'train {kind}']
    assert (journey.folder / f'run_{kind}' / 'epoch_2.pth').is_file()
    assert '60 objects in 2 images' in journey[f'predict {kind}']  # 30 queries an image
    assert len(list((journey.folder / f'found_{kind}' / 'pictures').glob('*.png'))) == 2
    assert 'AP50' in journey[f'analyze {kind}'] and (journey.folder / f'analysis_{kind}' / 'analysis.html').is_file()
    figures = journey.json(f'analysis_{kind}/analysis.json')
    assert figures['images'] == (1 if kind == 'voc' else 2)  # VOC has one part, split


def test_predictions_in_a_file_are_judged_as_those_of_a_checkpoint(journey):
    journey['analyze files']
    first, second = journey.json('analysis_files/analysis.json'), journey.json('analysis_coco/analysis.json')
    assert [entry['objects'] for entry in first['classes']] == [entry['objects'] for entry in second['classes']]


def test_it_is_explained_plotted_and_evaluated(journey):
    journey['explain']
    assert '<script' in (journey.folder / 'page.html').read_text()
    assert 'loss, run_yolo: last' in journey['plot'] and (journey.folder / 'c.png').stat().st_size > 5000
    assert 'bbox_mAP' in journey['test']


def test_the_package_from_python(journey):
    assert 'found 30 (30, 4)' in journey.python and (journey.folder / 'plotted.png').is_file()


def test_the_console_command_is_installed(journey):
    command = [journey.installed.python.parent / 'mmcondetr', 'check', 'gone.py']
    environment = dict(journey.installed.environment, PYTHONWARNINGS='ignore')
    done = subprocess.run(command, cwd=journey.folder, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "error: Config 'gone.py' is neither" in done.stderr

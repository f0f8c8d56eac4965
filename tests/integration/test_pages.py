"""The pages for users: one skeleton, links and pictures that exist, and commands that work.

Commands in ``bash`` blocks and lines of Python are run, in the pages' order, on generated pictures; those in
``console`` blocks need GPUs, Slurm or a network, and are only parsed. Python that begins with the name of a file
becomes that file.
"""

import importlib.util
import re
import shlex
import shutil
from argparse import ArgumentParser
from pathlib import Path

import pytest
from exported import least
from own_data_files import make_shapes
from tiny_files import write_model
from tiny_model import tiny_config

from mmcondetr import cli

DOCS = Path(__file__).resolve().parents[2] / 'docs'
ONE_JOURNEY = ('train', 'predict', 'explain', 'analyze', 'resume', 'masks', 'questions')
PAGES = (*ONE_JOURNEY, 'deploy')  # whose model is a tiny one: tracing takes a while
SECTIONS = ['Command', 'Picture', 'Output', 'Python', 'Mistakes']
#: A run of one epoch of two steps instead of thousands.
TINY = """
max_epochs = 1
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=1, by_epoch=True, milestones=[1])]
train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader.update(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
"""

#: The extra for exported files.
EXPORTS = all(importlib.util.find_spec(name) for name in ('onnx', 'onnxscript', 'onnxruntime'))

#: What mmcondetr test needs besides the model.
EVALUATED = """
test_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmcondetr.CocoDataset',
        data_root='photos',
        ann_file='annotations/val.json',
        data_prefix=dict(img='val'),
        test_mode=True,
        metainfo=dict(classes=('circle', 'triangle', 'square', 'star', 'ring')),
        pipeline=test_dataloader['dataset']['pipeline'],
    ),
)
test_evaluator = dict(type='mmcondetr.CocoMetric', ann_file='photos/annotations/val.json', metric='bbox')
test_cfg = dict(type='TestLoop')
"""


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, content) of the fenced blocks."""
    return re.findall(r'^```(\w+)\n(.*?)^```$', (DOCS / f'{page}.md').read_text(), re.M | re.S)


def commands(content: str) -> list[list[str]]:
    """Words after ``mmcondetr`` of each line that calls it, also by torchrun or srun."""
    lines = [shlex.split(line, comments=True) for line in content.replace('\\\n', ' ').splitlines()]
    return [words[words.index('mmcondetr') + 1 :] for words in lines if 'mmcondetr' in words]


@pytest.mark.parametrize('page', (*PAGES, '../README'))
def test_all_commands_are_parsed(page):
    found = [words for kind, content in blocks(page) if kind in ('bash', 'console') for words in commands(content)]
    assert len(found) > 1
    for name, *arguments in found:
        parser = ArgumentParser()
        cli.load_command(name).add_arguments(parser)
        parser.parse_args(arguments)  # SystemExit where a flag does not exist


@pytest.mark.parametrize('page', PAGES)
def test_the_skeleton_the_links_and_the_pictures(page):
    text = (DOCS / f'{page}.md').read_text()
    assert re.findall(r'^## (.*)$', text, re.M) == SECTIONS
    for target in re.findall(r'\]\(([^)#]+)', text):
        assert '://' in target or (DOCS / target).is_file(), target


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What the pages begin with: photos/, new_photos/ and photo.png."""
    folder = tmp_path_factory.mktemp('pages')
    make_shapes(folder / 'photos', num_train=4, num_val=2)
    shutil.copytree(folder / 'photos' / 'val', folder / 'new_photos')
    shutil.copy(sorted((folder / 'new_photos').iterdir())[0], folder / 'photo.png')
    return folder


def needs_an_exported_file(words: list[str]) -> bool:
    return words[0] == 'export' or '--runtime' in words


def follow(page: str, capsys) -> None:
    """Do what a page says, in the current folder; without the extra for exported files, the rest."""
    for kind, content in blocks(page):
        for words in commands(content) if kind == 'bash' else ():
            if not EXPORTS and needs_an_exported_file(words):
                continue
            assert cli.main(words) == 0, f'{page}: {words}\n{capsys.readouterr().err}'
            if words[0] == 'init':
                with open('my_config.py', 'a') as file:
                    file.write(TINY)
        file = re.match(r'# (\w+\.py)\n', content)
        if kind == 'python' and file:
            Path(file[1]).write_text(content)
        elif kind == 'python' and (EXPORTS or 'mmcondetr.runtime' not in content):
            exec(compile(content, f'{page}.md', 'exec'), {})


@pytest.mark.slow
def test_they_do_what_the_pages_say(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)  # init would choose the model that needs a download
    for page in ONE_JOURNEY:
        follow(page, capsys)
    for written in (
        'data_check/data.html', 'work_dirs/my_config/epoch_2.pth', 'work_dirs/from_python/epoch_1.pth', 'curves.png',
        'found/predictions.json', 'found/pictures/000001.png', 'chosen/predictions.json', 'small/predictions.json',
        'found.png', 'page.html', 'attention.png', 'from_python.html', 'analysis/analysis.html',
        'analysis_of_files/analysis.json', 'analysis_from_python/analysis.json', 'work_dirs/my_masks/epoch_1.pth',
        'found_masks/predictions.json', 'masks.html', 'masks.png', *(['masks.onnx'] if EXPORTS else []),
    ):  # fmt: skip
        assert Path(written).is_file(), written


@pytest.mark.slow
def test_an_exported_file_does_what_the_page_says(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip('onnxruntime')
    for name in ('photos', 'new_photos'):
        shutil.copytree(folder / name, tmp_path / name)
    shutil.copy(folder / 'photo.png', tmp_path)
    monkeypatch.chdir(tmp_path)
    model = least(tiny_config())
    model['decoder']['num_layers'] = model['encoder']['num_layers'] = 1
    _, checkpoint = write_model(tmp_path, model, 'my_config')
    run = tmp_path / 'work_dirs' / 'my_config'
    run.mkdir(parents=True)
    shutil.move(checkpoint, run / 'epoch_1.pth')
    with open('my_config.py', 'a') as file:
        file.write(EVALUATED)
    follow('deploy', capsys)
    said = capsys.readouterr().out
    assert 'largest differences from the model in PyTorch' in said and 'bbox_mAP' in said
    assert Path('model.onnx').is_file()

"""A wheel, built from what git tracks and installed away from the source, does what mim promises for a package."""

import functools
import http.server
import importlib.util
import pickle
import socket
import threading
import zipfile
from pathlib import Path

import pytest
from installed_wheel import Installed, files_under

from mmcondetr.checkpoints.files import load_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec('mim') is None, reason='needs the mim extra'),
]
CONFIG = 'conditional-detr_r18_small_1xb16-24e_shapes.py'
PUBLISHED = 'conditional-detr_r50_8xb2-50e_coco'
SHORT = [
    '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1',
    *(f'{part}_dataloader.{key}' for part in ('train', 'val', 'test')
      for key in ('batch_size=2', 'num_workers=0', 'persistent_workers=False')),
]  # fmt: skip


@pytest.fixture(scope='module')
def installed(wheel, shapes, tmp_path_factory) -> Installed:
    return Installed(tmp_path_factory.mktemp('installed'), wheel, shapes)


@pytest.fixture(scope='module')
def trained(installed) -> Path:
    """The work directory of ``mim train`` on one process: two iterations."""
    work_dir = installed.cwd / 'one'
    output = installed.mim('train', 'mmcondetr', CONFIG, '--gpus', 0, '--work-dir', work_dir, *SHORT)
    assert 'Training finished successfully' in output
    assert 'epoch 1/1, iteration 2/2' in output
    return work_dir


def test_the_wheel_carries_what_mim_looks_for(wheel, checkout):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f'mmcondetr/.mim/{name}' for name in ('model-index.yml', 'tools/train.py', 'tools/test.py')} <= names
    assert 'mmcondetr/py.typed' in names
    for folder in ('configs', 'tools'):
        inside = {name.split('/.mim/')[1] for name in names if name.startswith(f'mmcondetr/.mim/{folder}/')}
        assert inside == {f'{folder}/{name}' for name in files_under(checkout / folder)}
    assert not any(name.startswith(('tests/', 'configs/', 'tools/')) for name in names)


def test_it_is_imported_from_where_it_was_installed(installed):
    found = installed.run('-c', 'import mmcondetr; print("at", mmcondetr.__file__)').split('at ')[-1].strip()
    assert Path(found) == installed.package / '__init__.py'


def test_mim_train_writes_a_checkpoint(trained):
    assert (trained / 'epoch_1.pth').is_file()


def test_mim_test_evaluates_it(installed, trained):
    out = installed.cwd / 'predictions.pkl'
    output = installed.mim(
        'test', 'mmcondetr', CONFIG, '--checkpoint', trained / 'epoch_1.pth', '--out', out, '--work-dir',
        installed.cwd / 'tested', *SHORT,
    )  # fmt: skip
    assert 'Testing finished successfully' in output and 'coco/bbox_mAP' in output
    assert len(pickle.loads(out.read_bytes())) == 2


@pytest.mark.parametrize('command', ['train', 'test'])
def test_mim_on_two_processes_without_cuda(installed, trained, command):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    work_dir = installed.cwd / f'two-{command}'
    checkpoint = ['--checkpoint', trained / 'epoch_1.pth'] if command == 'test' else []
    output = installed.mim(
        command, 'mmcondetr', CONFIG, *checkpoint, '--launcher', 'pytorch', '-G', 2, '--port', port, '--work-dir',
        work_dir, *SHORT,
    )  # fmt: skip
    assert 'finished successfully' in output and 'coco/bbox_mAP' in output
    if command == 'train':
        assert 'epoch 1/1, iteration 1/1' in output  # each has half of the images
        state = load_file(work_dir / 'epoch_1.pth')['state_dict']
        assert not any(name.startswith('module.') for name in state)


def test_mim_search_lists_the_models(installed):
    output = installed.mim('search', 'mmcondetr', '--valid-config')
    assert PUBLISHED in output and 'conditional-detr_r101-dc5_8xb1-108e_coco' in output


def test_mim_download_fetches_weights_and_config(installed):
    served, dest = installed.cwd / 'served', installed.cwd / 'downloaded'
    served.mkdir()
    weights = b'not weights, but these bytes' * 100
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    metafile = installed.package / '.mim' / 'configs' / 'conditional_detr' / 'metafile.yml'
    original = metafile.read_text()
    try:
        url = read_weights_url(original)
        name = url.rsplit('/', 1)[1]
        (served / name).write_bytes(weights)
        metafile.write_text(original.replace(url, f'http://127.0.0.1:{server.server_port}/{name}'))
        output = installed.mim('download', 'mmcondetr', '--config', PUBLISHED, '--dest', dest)
    finally:
        metafile.write_text(original)
        server.shutdown()
        server.server_close()
    assert 'Successfully downloaded' in output and 'Successfully dumped' in output
    assert (dest / name).read_bytes() == weights
    assert 'mmcondetr.ConditionalDETR' in (dest / f'{PUBLISHED}.py').read_text()


def read_weights_url(metafile: str) -> str:
    """The URL that the published model has in the metafile."""
    import yaml

    (model,) = [model for model in yaml.safe_load(metafile)['Models'] if model['Name'] == PUBLISHED]
    return model['Weights']


def test_a_users_config_inherits_from_the_installed_package(installed):
    mine = installed.cwd / 'mine.py'
    mine.write_text(f"_base_ = 'mmcondetr::shapes/{CONFIG}'\nmodel = dict(num_queries=7)\n")
    work_dir = installed.cwd / 'mine'
    output = installed.mim('train', 'mmcondetr', mine, '--gpus', 0, '--work-dir', work_dir, *SHORT)
    assert 'Training finished successfully' in output
    assert len(load_file(work_dir / 'epoch_1.pth')['state_dict']['query_embedding.weight']) == 7


def test_mmdets_own_training_tool_runs_our_config(installed):
    config = installed.package / '.mim' / 'configs' / 'shapes' / CONFIG
    code = 'import mmdet, os; print("at", os.path.dirname(mmdet.__file__))'
    tool = Path(installed.run('-c', code).split('at ')[-1].strip()) / '.mim' / 'tools' / 'train.py'
    installed.run(tool, config, '--work-dir', installed.cwd / 'mmdets', *SHORT)
    assert (installed.cwd / 'mmdets' / 'epoch_1.pth').is_file()


def test_mmdets_inferencer_runs_our_model(installed, trained, shapes):
    config = installed.package / '.mim' / 'configs' / 'shapes' / CONFIG
    image = next((shapes / 'val').glob('*.png'))
    code = (
        'import mmcondetr\nfrom mmdet.apis import DetInferencer\n'
        f'inferencer = DetInferencer({str(config)!r}, {str(trained / "epoch_1.pth")!r}, device="cpu", '
        'show_progress=False)\n'
        f'result = inferencer({str(image)!r})["predictions"][0]\n'
        'print("scores", len(result["scores"]), type(inferencer.model).__module__)\n'
    )
    count, module = installed.run('-c', code).split('scores ')[-1].split()[:2]
    assert int(count) > 0 and module.startswith('mmcondetr.')

"""Published weights: found by name, held against their SHA-256; and the commands that show configs."""

import hashlib
import http.server

import pytest
from loopback_server import serving

import mmcondetr
from mmcondetr.checkpoints import published
from mmcondetr.checkpoints.published import PublishedModel, fetch, find_model, list_models
from mmcondetr.cli import main
from mmcondetr.compat.config_scope import config_root
from mmcondetr.errors import UserError

NAME = 'conditional-detr_r50_8xb2-50e_coco'


@pytest.fixture
def served(tmp_path, monkeypatch):
    """One model without a stated SHA-256; returns its bytes' file on the server and where downloads are kept."""
    folder = tmp_path / 'server'
    folder.mkdir()
    (folder / 'model.pth').write_bytes(b'weights' * 1000)
    stated = hashlib.sha256(b'weights' * 1000).hexdigest()[:8]
    (folder / f'model-{stated}.pth').write_bytes(b'weights' * 1000)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *args):
            pass

    with serving(Quiet, monkeypatch) as url:
        models = (
            PublishedModel('plain', 'a/plain.py', 40.0, f'{url}/model.pth', 40.1),
            PublishedModel('stated', 'a/stated.py', 40.0, f'{url}/model-{stated}.pth', 40.1),
        )
        monkeypatch.setattr(published, 'list_models', lambda: models)
        monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path / 'hub'))
        yield folder


def test_every_row_of_the_metafiles_names_a_config_that_is_there():
    models = list_models()
    assert len(models) > 30 and len({model.name for model in models}) == len(models)
    assert all((config_root() / model.config).is_file() for model in models)
    assert find_model(NAME).weights_ap == 41.0 and find_model(f'{NAME}.py').paper_ap == 40.9


def test_names_without_weights():
    with pytest.raises(UserError, match=f"no model 'conditional-detr_r50'. Similar: .*{NAME}"):
        find_model('conditional-detr_r50')
    with pytest.raises(UserError, match=f'No published weights for .* Similar: {NAME}'):
        find_model('conditional-detr_r50_8xb2-75e_coco')
    with pytest.raises(UserError, match="no model 'my.py'"):
        mmcondetr.Detector('my.py')


def test_an_unpublished_hash_is_stored_at_the_first_download(served, tmp_path):
    digest = hashlib.sha256((served / 'model.pth').read_bytes()).hexdigest()
    first = fetch('plain', tmp_path / 'out')
    assert first.sha256 == digest and 'none published' in first.verified
    assert first.path == str(tmp_path / 'out' / 'model.pth')
    second = fetch('plain')
    assert second.verified == 'same as at the first download'
    with open(second.path, 'ab') as file:
        file.write(b'!')
    with pytest.raises(UserError, match='differs from the first download'):
        fetch('plain')


def test_a_hash_in_the_name_is_verified(served):
    fetched = fetch('stated')
    assert 'as stated in its name' in fetched.verified and fetched.sha256.startswith(fetched.path[-12:-4])


def test_the_download_command(served, tmp_path, capsys):
    assert main(['download', 'plain', '--out', str(tmp_path / 'out')]) == 0
    output = capsys.readouterr().out
    assert 'SHA-256' in output and output.splitlines()[-1] == str(tmp_path / 'out' / 'model.pth')
    assert main(['download', 'plane']) == 2
    assert 'Similar: plain' in capsys.readouterr().err


def test_configs_are_listed(capsys):
    assert main(['list']) == 0
    output = capsys.readouterr().out
    stems = {path.stem for path in config_root().glob('*/*.py') if path.parent.name != '_base_'}
    assert stems <= {line.split()[0] for line in output.splitlines()}
    assert main(['list', 'conditional-detr_r101', '--weights']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all('weights AP' in line for line in lines)
    assert main(['list', 'nothing-like-it']) == 2


def test_a_config_is_printed(capsys):
    assert main(['config', NAME, '--key', 'model.num_queries', '--cfg-options', 'model.num_queries=77']) == 0
    assert capsys.readouterr().out.strip() == '77'
    assert main(['config', NAME, '--key', 'param_scheduler.0.milestones']) == 0
    assert capsys.readouterr().out.split() == ['[', '40,', ']']
    assert main(['config', NAME, '--key', 'model.no.such']) == 2
    assert "model has no 'no'; it has: " in capsys.readouterr().err

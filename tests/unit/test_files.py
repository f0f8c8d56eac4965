"""Reading checkpoint files safely, and writing them so that a kill leaves the old one or the new one."""

from __future__ import annotations

import os
import pickle
import struct

import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from torch import nn

from mmcondetr.checkpoints.files import check_fits, load_file
from mmcondetr.errors import UserError


class Payload:
    """Runs a command when it is unpickled without care."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    torch.save(dict(state_dict=dict(weight=torch.arange(3.0)), meta=dict(epoch=2)), path)
    return path


def test_reads_tensors_and_plain_values(good):
    loaded = load_file(good)
    assert torch.equal(loaded['state_dict']['weight'], torch.arange(3.0)) and loaded['meta'] == dict(epoch=2)


def test_reads_mmengine_messages(tmp_path):
    """mmengine keeps its log in the checkpoint, as objects that weights_only=True refuses by itself."""
    hub = MessageHub('test_reads_mmengine_messages')
    hub.update_scalar('loss', 1.5)
    hub.update_info('iter', 3)
    torch.save(dict(message_hub=hub.state_dict()), tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')['message_hub']['log_scalars']['loss']
    assert isinstance(loaded, HistoryBuffer) and loaded.current() == 1.5


def test_reads_safetensors(tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    safetensors.save_file(dict(weight=torch.arange(3.0)), tmp_path / 'a.safetensors')
    assert torch.equal(load_file(tmp_path / 'a.safetensors')['state_dict']['weight'], torch.arange(3.0))
    (tmp_path / 'cut.safetensors').write_bytes((tmp_path / 'a.safetensors').read_bytes()[:-4])
    with pytest.raises(UserError, match='cut.safetensors.* is not a complete safetensors file'):
        load_file(tmp_path / 'cut.safetensors')


@pytest.mark.parametrize('data', [4, 9 << 20])
def test_a_header_that_is_longer_than_its_tensors_need(tmp_path, data):
    """29 MB of empty dicts took 700 MB."""
    pytest.importorskip('safetensors')
    path = tmp_path / 'a.safetensors'
    about = b'{"weight":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}' % (data, data)
    fits = max(1 << 20, data // 7 - 8)  # an eighth of the file
    header = about + b' ' * (fits - len(about) - 1) + b'}'
    path.write_bytes(struct.pack('<Q', fits) + header + bytes(data))
    assert load_file(path)['state_dict']['weight'].numel() == data
    header = about + b',"__metadata__":[' + b'{},' * (fits // 2) + b'{}]}'
    path.write_bytes(struct.pack('<Q', len(header)) + header + bytes(data))
    with pytest.raises(UserError, match=rf'{len(header)} of its .* bytes are the header'):
        load_file(path)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_code_is_refused_and_not_run(tmp_path, zipped):
    trap = tmp_path / 'trap'
    torch.save(dict(state_dict={}, extra=Payload(trap)), tmp_path / 'evil.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil.pth' is refused: it asks for '(posix|nt|os).mkdir', which is code"):
        load_file(tmp_path / 'evil.pth')
    assert not trap.exists()


def test_a_plain_pickle_is_refused_and_not_run(tmp_path):
    trap = tmp_path / 'trap'
    (tmp_path / 'evil.pkl').write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(UserError, match='evil.pkl'):
        load_file(tmp_path / 'evil.pkl')
    assert not trap.exists()


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(tmp_path / 'script.pt'))
    with pytest.raises(UserError, match='TorchScript'):
        load_file(tmp_path / 'script.pt')


def test_mmengine_reads_local_files_the_safe_way(tmp_path):
    torch.save(dict(extra=Payload(tmp_path / 'trap')), tmp_path / 'evil.pth')
    with pytest.raises(UserError, match='is refused'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'trap').exists()


@pytest.mark.parametrize('keep', [0, 1, 10, 200, -1])
def test_truncated_files(good, tmp_path, keep):
    (tmp_path / 'cut.pth').write_bytes(good.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut.pth' cannot be read: it is (empty|truncated)"):
        load_file(tmp_path / 'cut.pth')


@pytest.mark.parametrize(
    'content, message',
    [
        (b'\n<!DOCTYPE html><html><body>404</body></html>', 'HTML'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'Git LFS'),
        (b'epoch,loss\n1,2\n', 'was not written by torch.save'),
    ],
    ids=['html', 'lfs', 'text'],
)
def test_files_that_are_no_checkpoints(tmp_path, content, message):
    (tmp_path / 'other.pth').write_bytes(content)
    with pytest.raises(UserError, match=f"other.pth' cannot be read: .*{message}"):
        load_file(tmp_path / 'other.pth')


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"absent.pth' does not exist \(load_from, --resume or init_cfg"):
        load_file(tmp_path / 'absent.pth')


def test_a_checkpoint_that_is_no_dict(tmp_path):
    torch.save(torch.zeros(2), tmp_path / 'tensor.pth')
    with pytest.raises(UserError, match='holds a Tensor, not a dict'):
        load_file(tmp_path / 'tensor.pth')


def test_check_fits_lists_every_kind_of_difference():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {key: value for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    check_fits(model, state)
    del state['0.bias']
    state['extra'] = torch.zeros(1)
    state['0.weight'] = torch.zeros(4, 2)
    message = (
        r'missing \(1\): 0.bias. Keys unknown \(1\): extra. Keys of another shape \(1\): '
        r'0.weight is \(4, 2\), the model has \(3, 2\)'
    )
    with pytest.raises(UserError, match=message):
        check_fits(model, state)

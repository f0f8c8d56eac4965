"""The stand-in for mmcv._ext, the package table, and what a checkpoint may hold."""

import importlib.metadata
import importlib.util
import os
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import mmcv  # noqa: F401  (else nothing stands in for its extension yet)
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from mmcondetr.compat import config_text, mmcv_ops, mmcv_stand_in, safe_loading

LITE = pytest.mark.skipif(
    not isinstance(sys.modules.get('mmcv._ext'), mmcv_stand_in._MMCVExtStandIn), reason='the full mmcv is installed'
)


def run_python(code: str, environment: dict, *paths: Path) -> str:
    environment = {**environment, 'PYTHONPATH': os.pathsep.join([*map(str, paths), environment['PYTHONPATH']])}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@LITE
def test_mmcv_finds_the_stand_in_as_it_looks_for_its_extension():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        assert importlib.util.find_spec('mmcv._ext') is not None
        if sys.version_info < (3, 14):  # gone there; mmcv 2.1 calls it
            assert pkgutil.find_loader('mmcv._ext') is not None


@LITE
def test_an_op_without_a_pytorch_version_says_what_to_install():
    from mmcv.ops import nms

    with pytest.raises(mmcv_stand_in.MissingMMCVOpError, match=r"mmcv op 'nms'.*install the full mmcv"):
        nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5)


def test_the_stand_in_steps_aside_for_the_real_extension(tmp_path, source_environment):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('REAL = True\n')
    code = (
        'import importlib.util, sys\n'
        f'spec = importlib.util.spec_from_file_location("mmcv_stand_in", {str(Path(mmcv_stand_in.__file__))!r})\n'
        'mmcv_stand_in = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(mmcv_stand_in)\n'
        'print(mmcv_stand_in.install_mmcv_ext(), "mmcv._ext" in sys.modules)\n'
        'import mmcv._ext\nprint(mmcv._ext.REAL, mmcv_stand_in.install_mmcv_ext())\n'
    )
    assert run_python(code, source_environment, tmp_path).split() == ['False', 'False', 'True', 'False']


def test_an_extension_imported_before_is_left_alone(monkeypatch):
    real = object()
    monkeypatch.setitem(sys.modules, 'mmcv._ext', real)
    assert mmcv_stand_in.install_mmcv_ext() is False
    assert sys.modules['mmcv._ext'] is real


def test_nothing_of_mmdets_models_is_needed_before_us(source_environment):
    code = (
        'import mmcondetr, mmdet.models, mmdet.evaluation, mmdet.apis\n'
        'from mmdet.registry import MODELS\n'
        'print(MODELS.get("mmcondetr.ConditionalDETR").__module__, MODELS.get("mmdet.ConditionalDETR").__module__)\n'
    )
    ours, theirs = run_python(code, source_environment).splitlines()[-1].split()  # forks of mmdet say more
    assert ours.startswith('mmcondetr.') and theirs.startswith('mmdet.')


def test_two_mmcv_in_one_folder_are_named(monkeypatch):
    monkeypatch.setattr(importlib.metadata, 'version', lambda name: {'mmcv': '2.1.0', 'mmcv-lite': '2.0.1'}[name])
    with pytest.warns(UserWarning, match=r'mmcv 2\.1\.0 and mmcv-lite 2\.0\.1 are both installed'):
        mmcv_stand_in.check_one_mmcv()


def test_one_mmcv_is_not_mentioned(monkeypatch):
    def version(name: str) -> str:
        if name == 'mmcv':
            raise importlib.metadata.PackageNotFoundError(name)
        return '2.1.0'

    monkeypatch.setattr(importlib.metadata, 'version', version)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        mmcv_stand_in.check_one_mmcv()


def test_configs_inherit_from_ours_by_package_name(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'mmcondetr::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'\n")
    assert Config.fromfile(config).model.type == 'mmcondetr.ConditionalDETR'


def test_a_missing_base_is_named(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'mmcondetr::conditional_detr/no-such.py'\n")
    with pytest.raises(Exception, match=r'no-such\.py|mmcondetr'):
        Config.fromfile(config)


def mmengine_checkpoint() -> dict:
    """What mmengine's runner writes besides tensors: log histories, numpy numbers, counters, random states."""
    buffer = HistoryBuffer([0.5, 0.25], [1, 1])
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    return dict(
        meta=dict(epoch=1, iter=3, dataset_meta=dict(classes=('a', 'b'), palette=[(1, 2, 3)])),
        state_dict=dict(weight=torch.arange(3.0)),
        message_hub=dict(log_scalars={'train/loss': buffer}, runtime_info=dict(eta=np.float64(0.5), step=np.int64(2))),
        optimizer=optimizer.state_dict(),
        param_schedulers=[schedule.state_dict()],
        random=dict(numpy=np.random.RandomState(0).get_state(), torch=torch.get_rng_state(), flags=np.array([True])),
    )


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_our_own_checkpoints_are_read_back(tmp_path, zipped):
    path = tmp_path / 'epoch_1.pth'
    torch.save(mmengine_checkpoint(), path, _use_new_zipfile_serialization=zipped)
    loaded = safe_loading.torch_load(path, map_location='cpu')
    assert loaded['state_dict']['weight'].tolist() == [0, 1, 2]
    assert loaded['message_hub']['log_scalars']['train/loss'].mean() == 0.375
    assert loaded['message_hub']['runtime_info'] == dict(eta=0.5, step=2)
    assert sorted(loaded['param_schedulers'][0]['milestones']) == [1, 3]
    assert np.array_equal(loaded['random']['numpy'][1], np.random.RandomState(0).get_state()[1])


def test_mmengines_own_loader_reads_them_too(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(mmengine_checkpoint(), path)
    assert torch.load(path)['message_hub']['log_scalars']['train/loss'].current() == 0.25


class RunsCode:
    """Unpickled by calling ``os.system``."""

    def __reduce__(self):
        return os.system, ('touch was-run',)


class ReachesOut:
    """Unpickled by calling ``getattr``, which the allow-list knows for one class and four names only."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
    'evil',
    [RunsCode(), ReachesOut(HistoryBuffer, '__init__'), ReachesOut(torch.Tensor, 'min')],
    ids=['system', 'method', 'class'],
)
def test_a_checkpoint_that_holds_code_is_refused(tmp_path, monkeypatch, evil, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, extra=evil), 'evil.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match='(?i)unsupported|may not ask|not allowed'):
        safe_loading.torch_load('evil.pth')
    assert not Path('was-run').exists()


def test_a_torchscript_archive_is_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / 'script.pt', 'w') as archive:
        archive.writestr('script/constants.pkl', b'')
    with pytest.raises(Exception, match='TorchScript archive'):
        safe_loading.torch_load(tmp_path / 'script.pt')


def focal_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Equation 5 of the focal loss paper, written out (gamma 2, alpha 0.25)."""
    one_hot = F.one_hot(target, logits.size(1) + 1)[:, :-1]
    p_t = torch.where(one_hot == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha_t = torch.where(one_hot == 1, 0.25, 0.75)
    return -alpha_t * (1 - p_t) ** 2 * p_t.log()


@LITE
def test_focal_loss_as_mmdet_calls_it_on_a_gpu():
    from mmdet.models.losses.focal_loss import sigmoid_focal_loss

    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.tensor([0, 3, 4, 4, 1, 2])  # 4 is background
    weight = torch.linspace(0, 1, 6, dtype=torch.float64)
    loss = sigmoid_focal_loss(logits, target, weight, reduction='sum', avg_factor=None)
    expected = (focal_loss(logits, target) * weight[:, None]).sum()
    assert torch.allclose(loss, expected, atol=1e-12)
    gradient, expected_gradient = (torch.autograd.grad(x, logits)[0] for x in (loss, expected))
    assert torch.allclose(gradient, expected_gradient, atol=1e-12)


def test_focal_loss_weighs_by_class():
    logits, target, output = torch.zeros(3, 2), torch.tensor([0, 1, 2]), torch.empty(3, 2)
    mmcv_ops.sigmoid_focal_loss_forward(logits, target, torch.tensor([1.0, 3.0]), output, gamma=2.0, alpha=0.25)
    expected = focal_loss(logits, target) * torch.tensor([[1.0], [3.0], [3.0]])
    assert torch.allclose(output, expected, atol=1e-6)


@LITE
def test_deformable_attention_as_mmcv_calls_it_on_a_gpu():
    from mmcv.ops.multi_scale_deform_attn import (
        MultiScaleDeformableAttnFunction,
        multi_scale_deformable_attn_pytorch,
    )

    generator = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[6, 4], [3, 2]])
    value = torch.randn(2, 30, 2, 8, dtype=torch.float64, generator=generator)
    locations = torch.rand(2, 5, 2, 2, 4, 2, dtype=torch.float64, generator=generator)
    weights = torch.rand(2, 5, 2, 2, 4, dtype=torch.float64, generator=generator)
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, torch.tensor([0, 24]), locations, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    assert torch.equal(output, expected)
    direction = torch.randn(output.shape, dtype=torch.float64, generator=generator)
    for ours, theirs in zip(
        torch.autograd.grad(output, inputs, direction), torch.autograd.grad(expected, inputs, direction)
    ):
        assert ours.abs().max() > 0 and torch.allclose(ours, theirs, atol=1e-12)


def test_mmdets_configs_are_found_where_mmengine_finds_them(monkeypatch):
    (mmengines,) = (cell.cell_contents for cell in Config._get_cfg_path.__closure__ if callable(cell.cell_contents))
    names = ('_base_/default_runtime.py', 'detr/detr_r50_8xb2-150e_coco.py')
    expected = [mmengines(f'mmdet::{name}', 'mine.py') for name in names]
    with pytest.raises(FileNotFoundError, match='gone.py'):
        Config._get_cfg_path('mmdet::detr/gone.py', 'mine.py')
    monkeypatch.setattr('mmengine.config.config._get_external_cfg_path', None)  # which reads the metafiles
    assert [Config._get_cfg_path(f'mmdet::{name}', 'mine.py') for name in names] == expected


def test_the_text_of_a_config_is_formatted_anew_only_when_it_changes():
    formatted = []
    module = SimpleNamespace(FormatCode=lambda text, **options: formatted.append((text, options)) or (text.upper(), 1))
    config_text.format_once(module)
    config_text.format_once(module)
    for text, style in [('a', 'x'), ('a', 'x'), ('b', 'x'), ('b', 'y'), ('b', 'y'), ('a', 'x')]:
        assert module.FormatCode(text, style_config=dict(name=style)) == (text.upper(), 1)
    calls = [('a', 'x'), ('b', 'x'), ('b', 'y'), ('a', 'x')]
    assert formatted == [(text, dict(style_config=dict(name=style))) for text, style in calls]
    config_text.format_once(fork := SimpleNamespace())  # imports yapf where it formats
    assert vars(fork) == {}


def test_a_changed_config_has_another_text():
    config = Config(dict(model=dict(type='A', sizes=[1, 2])))
    first = config.pretty_text
    assert config.pretty_text == first == "model = dict(\n    sizes=[\n        1,\n        2,\n    ], type='A')\n"
    config.model.sizes[1] = 3
    assert config.pretty_text == first.replace('2', '3')


@pytest.mark.cuda
def test_mmdets_losses_and_attention_run_on_a_gpu(cuda):
    from mmcv.ops import MultiScaleDeformableAttention
    from mmdet.models.losses import FocalLoss

    logits, target = torch.randn(6, 4, device=cuda, requires_grad=True), torch.tensor([0, 3, 4, 4, 1, 2]).to(cuda)
    loss = FocalLoss()(logits, target)
    loss.backward()
    cpu = FocalLoss()(logits.detach().cpu(), target.cpu())
    assert torch.allclose(loss.cpu(), cpu, atol=1e-5) and logits.grad.abs().max() > 0
    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=1, batch_first=True).to(cuda)
    query = torch.randn(2, 12, 32, device=cuda, requires_grad=True)
    output = attention(
        query,
        value=query,
        reference_points=torch.rand(2, 12, 1, 2, device=cuda),
        spatial_shapes=torch.tensor([[4, 3]], device=cuda),
        level_start_index=torch.tensor([0], device=cuda),
    )
    output.sum().backward()
    assert output.shape == query.shape and query.grad.abs().max() > 0

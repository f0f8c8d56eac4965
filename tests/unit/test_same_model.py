"""Resuming with another model than the one that was trained: one line that says what differs."""

from __future__ import annotations

import pytest
import torch
from tiny_model import build
from tiny_variants import ROOT, tiny_variant
from toy_runner import make_runner

from mmcondetr.errors import UserError

CONDITIONAL = ROOT / 'configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
DAB = ROOT / 'configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py'
DN_DAB = ROOT / 'configs/dn_dab_detr/dn-dab-detr_r50_8xb2-50e_coco.py'


def model(path=CONDITIONAL, groups: int = 1, **changes) -> torch.nn.Module:
    config = dict(tiny_variant(path), **changes)
    if groups > 1:
        config['training_queries'] = dict(type='mmcondetr.QueryGroups', num_groups=groups)
    return build(config)


def runner_of(given: torch.nn.Module, folder, **options):
    """A runner that is not run, because its data are no images."""
    runner = make_runner(folder, model=given, **options)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    return runner


def resume(trained: torch.nn.Module, configured: torch.nn.Module, folder) -> None:
    """Save as training does, then resume with the other model."""
    first = runner_of(trained, folder / 'first')
    first.save_checkpoint(str(folder), 'epoch_1.pth', by_epoch=False)
    second = runner_of(configured, folder / 'second', resume=True)
    second._load_from = str(folder / 'epoch_1.pth')
    second.load_or_resume()


@pytest.mark.parametrize('trained, configured', [(3, 5), (5, 3), (3, 1), (1, 3)])
def test_other_numbers_of_groups(tmp_path, trained, configured):
    with pytest.raises(UserError) as raised:
        resume(model(groups=trained), model(groups=configured), tmp_path)
    message = str(raised.value)
    counts = f'{trained} groups of object queries in the checkpoint, {configured} in the config'
    assert f'differ in model.training_queries ({counts}; only the ' in message
    owner, lacking = ('checkpoint', configured) if trained > configured else ('config', trained)
    assert f'only the {owner} has training_queries.others.{lacking - 1}.weight' in message
    assert f"checkpoint '{tmp_path / 'epoch_1.pth'}'" in message and len(message.splitlines()) == 1
    assert 'Resume with the config that the checkpoint was trained with' in message
    assert message.endswith('pass it as load_from, without --resume.')


def test_denoising_as_plain(tmp_path):
    with pytest.raises(UserError, match=r'differ in model\.training_queries, model\.decoder \(only the checkpoint '):
        resume(model(DN_DAB), model(DAB), tmp_path)


def test_another_number_of_queries(tmp_path):
    with pytest.raises(UserError, match=r'differ in model\.num_queries \(of other shapes are query_embed'):
        resume(model(), model(num_queries=7), tmp_path)


def test_the_same_model_resumes(tmp_path):
    trained, configured = model(groups=3), model(groups=3)
    resume(trained, configured, tmp_path)
    others = [each.training_queries.others[1].weight for each in (trained, configured)]
    assert torch.equal(*others)


def test_weights_alone_are_fitted(tmp_path):
    trained, configured = model(groups=3), model(groups=5)
    torch.save(dict(state_dict=trained.state_dict(), optimizer={}), tmp_path / 'trained.pth')
    runner_of(configured, tmp_path / 'run').load_checkpoint(str(tmp_path / 'trained.pth'))
    others = [each.training_queries.others[0].weight for each in (trained, configured)]
    assert torch.equal(*others)

"""Group DETR: groups that never see each other, are matched separately and leave nothing behind in inference."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import load_checkpoint
from tiny_model import CONFIG, batch, build
from tiny_variants import ROOT, tiny_variant

from mmcondetr.checkpoints.conversion import convert
from mmcondetr.engine.console import ConsoleHook
from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import optimize_for_inference
from mmcondetr.models.training.groups import QueryGroups, fold
from mmcondetr.visualization import record_attention

K = 3
SYSTEMS = ('conditional-detr', 'dab-detr')


def config(system: str, dropout: float = 0.0, **training_queries) -> dict:
    """A tiny model of one of the two systems; with ``training_queries``, groups."""
    if system == 'dab-detr':
        model = tiny_variant(ROOT / 'configs/dab_detr/dab-detr_r50_8xb2-50e_coco.py')
    else:
        model = copy.deepcopy(CONFIG)
    for part in ('encoder', 'decoder'):
        model[part]['layer']['dropout'] = dropout
    return dict(model, training_queries=training_queries) if training_queries else model


def grouped(system: str, kind: str = 'QueryGroups') -> torch.nn.Module:
    return build(config(system, type=f'mmcondetr.{kind}', num_groups=K)).train()


def losses(model: torch.nn.Module) -> dict:
    torch.manual_seed(5)
    return model.loss(*batch())


def gradients(model: torch.nn.Module) -> dict:
    model.zero_grad()
    sum(losses(model).values()).backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize('system', SYSTEMS)
def test_one_group_is_todays_model_bit_for_bit(system):
    plain = build(config(system, 0.1)).train()
    one = build(config(system, 0.1, type='mmcondetr.QueryGroups', num_groups=1)).train()
    assert list(plain.state_dict()) == list(one.state_dict())
    one.load_state_dict(plain.state_dict())
    wanted, given = losses(plain), losses(one)
    assert list(wanted) == list(given) and all(torch.equal(wanted[name], given[name]) for name in wanted)
    wanted, given = gradients(plain), gradients(one)
    assert set(wanted) == set(given) and all(torch.equal(wanted[name], given[name]) for name in wanted)


@pytest.mark.parametrize('system', SYSTEMS)
def test_the_gradient_of_a_group_by_the_queries_of_another_is_exactly_zero(system):
    model = grouped(system)
    inputs, samples = batch()
    hidden_states, references = model.decode(
        inputs, samples, model.training_queries(model.query_embedding.weight[None], samples)
    )
    num_queries = model.query_embedding.num_embeddings
    weights = [model.query_embedding.weight, *(group.weight for group in model.training_queries.others)]
    for k in range(K):
        mine = slice(k * num_queries, (k + 1) * num_queries)
        total = hidden_states[:, :, mine].square().sum() + references[:, :, mine].square().sum()
        by_group = torch.autograd.grad(total, weights, retain_graph=True)
        assert [bool(gradient.any()) for gradient in by_group] == [j == k for j in range(K)]


@pytest.mark.parametrize('system', SYSTEMS)
@pytest.mark.parametrize('empty', [False, True])
def test_equal_groups_lose_what_one_does_and_share_its_gradient(system, empty):
    plain, model = build(config(system)).train(), grouped(system)
    with torch.no_grad():  # calmer weights: with the tiny model's, rounding alone moves the backbone's gradients by 20%
        for name, value in plain.named_parameters():
            value *= 0.7 if value.dim() > 1 and name != 'query_embedding.weight' else 1
    model.load_state_dict(plain.state_dict(), strict=False)
    for group in model.training_queries.others:
        group.load_state_dict(plain.query_embedding.state_dict())
    inputs, samples = batch()
    if empty:
        for sample in samples:
            sample.gt_instances = sample.gt_instances[:0]
    results = []
    for each in plain, model:
        each.zero_grad()
        terms = each.loss(inputs, samples)
        sum(terms.values()).backward()
        results.append((terms, dict(each.named_parameters())))
    (wanted, shared), (given, parameters) = results
    for name in wanted:
        assert torch.allclose(given[name], wanted[name], rtol=1e-5, atol=1e-6), name
    for name, value in shared.items():
        if name != 'query_embedding.weight' and value.grad is not None:
            difference = (parameters[name].grad - value.grad).norm()
            assert difference <= 1e-5 * value.grad.norm() + 1e-5, name
    every = [model.query_embedding, *model.training_queries.others]
    total = sum(group.weight.grad for group in every)  # each has its share
    assert torch.allclose(total, plain.query_embedding.weight.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('system', SYSTEMS)
def test_evaluation_and_the_optimised_model_are_the_plain_model(system):
    model, plain = grouped(system).eval(), build(config(system)).eval()
    plain.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith('training_queries.')}
    )
    inputs, samples = batch()
    with torch.no_grad():
        for wanted, given in zip(plain(inputs, samples, mode='tensor'), model(inputs, samples, mode='tensor')):
            assert torch.equal(wanted, given)
        wanted, given = plain.loss(inputs, samples), model.loss(inputs, samples)
        assert all(torch.equal(wanted[name], given[name]) for name in wanted)
        before = model(inputs, samples, mode='tensor')
        fast, plain = optimize_for_inference(model), optimize_for_inference(plain)
        assert list(fast.state_dict()) == list(plain.state_dict())
        for wanted, given in zip(before, fast(inputs, samples, mode='tensor')):
            assert torch.allclose(wanted, given, atol=1e-4)


def test_matching_equals_separate_calls():
    model = grouped('conditional-detr')
    inputs, samples = batch()
    queries = model.training_queries(model.query_embedding.weight[None], samples)
    hidden_states, references = model.decode(inputs, samples, queries)
    num_queries, matcher, seen = model.query_embedding.num_embeddings, model.bbox_head.matcher, []
    match = matcher.match
    matcher.match = lambda *arguments: seen.append((arguments, match(*arguments))) or seen[-1][1]
    model.training_queries.loss(model.bbox_head, hidden_states, references, samples)
    ((logits, boxes, labels, targets), together), seen = seen[0], []
    logits, boxes = model.bbox_head(hidden_states, references)
    for k in range(K):
        mine = slice(k * num_queries, (k + 1) * num_queries)
        alone = match(logits[:, :, mine], boxes[:, :, mine], labels[::K], targets[::K])
        here = together.image % K == k
        pairs = [together.layer[here], together.image[here] // K, together.query[here], together.target[here]]
        assert all(torch.equal(x, y) for x, y in zip(pairs, (alone.layer, alone.image, alone.query, alone.target)))
        assert len(alone.layer) > 0


def test_folding_keeps_groups_together():
    x = torch.arange(2 * K * 4).view(2, K * 4, 1)
    assert torch.equal(fold(x, K, 1)[K + 1, :, 0], torch.arange(K * 4 + 4, K * 4 + 8))


def test_groups_start_apart_and_all_of_them_learn():
    model = grouped('conditional-detr')
    every = [model.query_embedding, *model.training_queries.others]
    assert len({tuple(group.weight.flatten()[:4].tolist()) for group in every}) == K
    before = [group.weight.clone() for group in every]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    gradients(model)
    optimizer.step()
    assert all((group.weight - old).abs().max() > 1e-5 for group, old in zip(every, before))


@pytest.mark.parametrize('system', SYSTEMS)
def test_activation_checkpointing_changes_no_gradient(system):
    model = grouped(system)
    wanted = gradients(model)
    model.decoder.with_cp = True
    given = gradients(model)
    assert set(wanted) == set(given)
    assert all(torch.allclose(wanted[name], given[name], rtol=1e-5, atol=1e-7) for name in wanted)


@pytest.mark.parametrize('system', SYSTEMS)
def test_mixed_precision_trains_all_groups(system):
    model = grouped(system)
    with torch.autocast('cpu', torch.bfloat16):
        terms = losses(model)
    sum(terms.values()).backward()
    for group in (model.query_embedding, *model.training_queries.others):
        assert group.weight.grad.isfinite().all() and group.weight.grad.any()


def test_the_recorder_sees_group_0_in_evaluation():
    model = grouped('conditional-detr').eval()
    inputs, samples = batch()
    with torch.no_grad(), record_attention(model) as recorded:
        model(inputs, samples, mode='tensor')
    assert len(recorded.decoder) == len(model.decoder.layers)
    assert recorded[0].combined().shape[0] == model.query_embedding.num_embeddings


def test_groups_that_see_each_other_and_one_to_many_are_other_models():
    mixed = grouped('conditional-detr', 'MixedQueryGroups')
    inputs, samples = batch()
    hidden_states, _ = mixed.decode(
        inputs, samples, mixed.training_queries(mixed.query_embedding.weight[None], samples)
    )
    first = hidden_states[:, :, : mixed.query_embedding.num_embeddings].square().sum()
    assert torch.autograd.grad(first, mixed.training_queries.others[0].weight)[0].any()

    many = build(config('conditional-detr', type='mmcondetr.OneToMany', num_copies=K)).train()
    matched = []
    match = many.bbox_head.matcher.match
    many.bbox_head.matcher.match = lambda *arguments: matched.append(match(*arguments)) or matched[-1]
    counts = [len(sample.gt_instances) for sample in samples]
    many.loss(inputs, samples)
    assert [len(sample.gt_instances) for sample in samples] == counts
    wanted = sum(min(K * count, many.query_embedding.num_embeddings) for count in counts)
    assert len(matched[0].query) == wanted * len(many.decoder.layers)


@pytest.mark.parametrize('system', SYSTEMS)
def test_a_plain_checkpoint_is_group_0_and_the_others_start_near_it_but_not_equal(system):
    plain, model = build(config(system), seed=1), grouped(system)
    model.load_state_dict(plain.state_dict())
    wanted = plain.query_embedding.weight
    assert torch.equal(model.query_embedding.weight, wanted)
    others = [group.weight for group in model.training_queries.others]
    for group in others:
        distance = (group - wanted).std() / wanted.std()
        assert 0.1 < distance < 0.4
    assert not torch.equal(*others)
    again = grouped(system)
    again.load_state_dict(plain.state_dict())
    assert all(torch.equal(x.weight, y) for x, y in zip(again.training_queries.others, others))


def test_groups_load_into_the_plain_model_and_into_other_numbers_of_groups():
    model, plain = grouped('conditional-detr'), build(config('conditional-detr'), seed=1)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.query_embedding.weight, model.query_embedding.weight)
    for count in (2, 5):
        other = build(config('conditional-detr', type='mmcondetr.QueryGroups', num_groups=count), seed=1)
        other.load_state_dict(model.state_dict())
        for index in range(min(count, K) - 1):
            given, wanted = (each.training_queries.others[index].weight for each in (other, model))
            assert torch.equal(given, wanted)


def test_the_console_of_a_training_says_how_a_checkpoint_was_fitted(tmp_path, capsys):
    plain, model, data = build(config('conditional-detr')), grouped('conditional-detr'), SimpleNamespace(dataset=[])
    runner = SimpleNamespace(model=model, _load_from='plain.pth')
    for given, wanted in (
        (plain, f'{K - 1} groups of object queries initialised from group 0 with noise'),
        (
            build(config('conditional-detr', type='mmcondetr.QueryGroups', num_groups=K + 1)),
            '1 group of object queries unused',
        ),
    ):
        torch.save(dict(state_dict=given.state_dict()), tmp_path / 'given.pth')
        load_checkpoint(model, str(tmp_path / 'given.pth'), map_location='cpu')
        capsys.readouterr()
        ConsoleHook()._describe(runner, train=data)
        assert capsys.readouterr().out.count(f'queries   {wanted}\n') == 1
        ConsoleHook()._describe(runner, test=data)
        assert 'queries' not in capsys.readouterr().out
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'same.pth')
    load_checkpoint(model, str(tmp_path / 'same.pth'), map_location='cpu')
    ConsoleHook()._describe(runner, train=data)
    assert 'queries' not in capsys.readouterr().out


def test_converting_keeps_what_inference_needs(tmp_path):
    model = grouped('conditional-detr')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    convert(tmp_path / 'trained.pth', tmp_path / 'plain.pth', 'mmcondetr')
    tensors = torch.load(tmp_path / 'plain.pth', weights_only=False)['state_dict']
    assert set(tensors) == set(build(config('conditional-detr')).state_dict())
    assert torch.equal(tensors['query_embedding.weight'], model.query_embedding.weight)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (11, "training_queries: must be None or a dict with a type, such as 'mmcondetr.QueryGroups', not 11"),
        (dict(num_groups=11), 'training_queries: must be None or a dict with a type'),
        (dict(type='mmcondetr.QueryGroups'), "training_queries: .* missing 1 required .* argument: 'num_groups'"),
        (dict(type='mmdet.FocalLoss'), 'training_queries.type: FocalLoss provides no queries for training'),
    ],
)
def test_what_is_no_part_for_training_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        build(dict(config('conditional-detr'), training_queries=given))


def test_what_cannot_be_divided_is_refused():
    for wrong in (0, 2.5, '11', True):
        with pytest.raises(ValueError, match=f'num_groups must be a whole number, 1 or more, got {wrong!r}'):
            QueryGroups(wrong)
    patterns = tiny_variant(ROOT / 'configs/dab_detr/dab-detr_r50_3-patterns_8xb2-50e_coco.py')
    with pytest.raises(UserError, match='PatternAnchorBoxes, whose queries go pattern by pattern'):
        build(dict(patterns, training_queries=dict(type='mmcondetr.QueryGroups', num_groups=2)))
    additive = tiny_variant(ROOT / 'configs/ablations/detr_r50_or-fl_8xb2-50e_coco.py')
    message = (
        "model.training_queries: QueryGroups splits the decoder's self-attention into groups, which that of "
        'AdditiveDecoderLayer cannot be: model.decoder must be that of Conditional DETR or DAB-DETR'
    )
    with pytest.raises(UserError, match=message):
        build(dict(additive, training_queries=dict(type='mmcondetr.QueryGroups', num_groups=2)))

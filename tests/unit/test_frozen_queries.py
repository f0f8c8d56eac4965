"""Object queries of a trained model that stay frozen while everything else is trained."""

import pytest
import torch
from tiny_model import CONFIG, batch, build

from mmcondetr.errors import UserError


def frozen(path) -> torch.nn.Module:
    return build(dict(CONFIG, training_queries=dict(type='mmcondetr.FrozenQueries', checkpoint=str(path))))


def test_they_are_the_checkpoints_and_stay_so(tmp_path):
    trained = torch.randn(CONFIG['num_queries'], 32)
    torch.save(dict(state_dict={'query_embedding.weight': trained}), tmp_path / 'trained.pth')
    model = frozen(tmp_path / 'trained.pth').train()
    model.query_embedding.weight.data.copy_(trained)  # tiny_model gives every weight a value of its own
    other = model.bbox_head.class_embed.weight.clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2, weight_decay=1e-1)
    sum(model.loss(*batch()).values()).backward()
    optimizer.step()
    assert torch.equal(model.query_embedding.weight, trained)
    assert not torch.equal(model.bbox_head.class_embed.weight, other)


def test_a_real_start_keeps_them(tmp_path):
    from mmdet.registry import MODELS

    trained = torch.randn(CONFIG['num_queries'], 32)
    torch.save({'query_embedding.weight': trained}, tmp_path / 'trained.pth')
    part = dict(type='mmcondetr.FrozenQueries', checkpoint=str(tmp_path / 'trained.pth'))
    model = MODELS.build(dict(CONFIG, training_queries=part))
    model.init_weights()
    assert torch.equal(model.query_embedding.weight, trained)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ['query_embedding.weight']


def test_a_checkpoint_of_another_size_is_named(tmp_path):
    torch.save({'query_embedding.weight': torch.randn(7, 32)}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r"other.pth': 'query_embedding.weight' has shape \(7, 32\), and the model's"):
        frozen(tmp_path / 'other.pth')
    torch.save({'weight': torch.randn(7, 32)}, tmp_path / 'none.pth')
    with pytest.raises(UserError, match=r"'query_embedding.weight' is missing"):
        frozen(tmp_path / 'none.pth')

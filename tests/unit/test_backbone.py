"""Our ResNet against mmdet's: same names, same results and gradients, fewer activations kept; the DC5 form."""

import pytest
import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from torch.autograd.graph import saved_tensors_hooks

from mmcondetr.models.backbone import ResNet, ResNetDC5

FROZEN = dict(norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True, frozen_stages=1)
TRAINED = dict(norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, frozen_stages=-1)
SMALL = dict(base_channels=8, stem_channels=8)


def pair(depth=50, **options):
    """Ours and mmdet's with the same weights, none of them zero."""
    torch.manual_seed(0)
    theirs = MMDetResNet(depth, num_stages=4, out_indices=(3,), style='pytorch', **SMALL, **options)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.2, 0.2)
    ours = ResNet(depth, **SMALL, **options)
    ours.load_state_dict(theirs.state_dict())  # strict: the names are mmdet's
    return ours, theirs


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('options', [FROZEN, TRAINED], ids=['frozen', 'trained'])
@pytest.mark.parametrize('depth', [18, 50])
def test_results_and_gradients_are_mmdets(depth, options, training):
    ours, theirs = (model.double() for model in pair(depth, **options))
    ours.train(training)
    theirs.train(training)  # mmdet's returns nothing
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    (a,), (b,) = ours(x), theirs(x)
    assert b.std() > 0.01
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    gradient = torch.randn_like(a)
    a.backward(gradient)
    b.backward(gradient)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        assert p.requires_grad == q.requires_grad
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-9, msg=lambda text, n=name: f'{n}: {text}')


def kept_bytes(model, x) -> int:
    """Bytes of distinct activations that the graph keeps for the backward pass."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor keeps its address from being used again
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(x)
    assert outputs[0].requires_grad
    return sum(size for size, _ in kept.values())


def test_training_with_frozen_batch_norm_keeps_half_of_what_mmdet_keeps():
    ours, theirs = pair(**FROZEN)
    ours.train()
    theirs.train()
    x = torch.randn(1, 3, 384, 512)  # large enough for the folded weights not to count
    assert kept_bytes(ours, x) < 0.6 * kept_bytes(theirs, x)


@pytest.mark.parametrize('options', [FROZEN, TRAINED], ids=['frozen', 'trained'])
def test_checkpointing_changes_memory_and_nothing_else(options):
    options = dict(options, norm_eval=True)  # running statistics would be updated twice
    plain, _ = pair(**options)
    lean, _ = pair(**options, with_cp=True)
    x = torch.randn(1, 3, 64, 96)
    for model in (plain.train(), lean.train()):
        model(x)[0].square().sum().backward()
    for p, q in zip(plain.parameters(), lean.parameters()):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-6)
    assert kept_bytes(lean, x) < 0.5 * kept_bytes(plain, x)


def test_dc5_keeps_stride_16_and_the_dilation_of_the_stage_before_in_its_first_block():
    model = ResNetDC5(50)
    convolutions = [block.conv2 for block in model.layer4]
    assert [c.dilation for c in convolutions] == [(1, 1), (2, 2), (2, 2)]
    assert [c.padding for c in convolutions] == [(1, 1), (2, 2), (2, 2)]
    assert all(c.stride == (1, 1) for c in convolutions)
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 64, 96))[0].shape == (1, 2048, 4, 6)


@pytest.mark.parametrize('options, word', [(dict(depth=18), 'depth'), (dict(depth=50, num_stages=3), 'num_stages')])
def test_dc5_refuses_what_it_cannot_dilate(options, word):
    with pytest.raises(ValueError, match=word):
        ResNetDC5(**options)


@pytest.mark.parametrize('kind', [ResNet, ResNetDC5])
@pytest.mark.parametrize('option', [dict(deep_stem=True), dict(plugins=[dict(cfg={})]), dict(avg_down=True)])
def test_what_our_blocks_do_not_compute_is_refused(kind, option):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {next(iter(option))} is supported by mmdet's own ResNet"):
        kind(50, **option)


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match='frozen_stagse'):
        ResNet(18, frozen_stagse=1)


def test_fewer_stages():
    model = ResNet(18, num_stages=3, out_indices=(1, 2), **SMALL).eval()
    with torch.no_grad():
        assert [tuple(x.shape) for x in model(torch.randn(1, 3, 64, 64))] == [(1, 16, 8, 8), (1, 32, 4, 4)]

"""Every recipe builds, takes a training step on shapes, and does what its name promises."""

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from own_data_files import make_shapes

from mmcondetr.datasets.read_image import array_pipeline

RECIPES = 'configs/finetune'
GREY = 'conditional-detr_r18_grayscale_1xb16-24e_shapes'
SWIN = 'conditional-detr_swin-t_8xb2-50e_coco'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('finetune') / 'shapes', num_train=4, num_val=2)


def on_shapes(config, shapes):
    """The config with the shapes data set of this test."""
    generate = dict(num_train=4, num_val=2, image_size=64)
    for part in ('train', 'val', 'test'):
        loader = config[f'{part}_dataloader']
        loader.dataset.update(data_root=f'{shapes}/', generate=generate)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    for part in ('val', 'test'):
        config[f'{part}_evaluator'].ann_file = f'{shapes}/annotations/val.json'
    return config


@pytest.fixture
def recipe(load_config, root, shapes):
    def load(name):
        return load_config(root / RECIPES / f'{name}.py')

    return load


def step(model, config, load_config, root, shapes):
    """Losses of two images, and their gradients."""
    init_default_scope('mmdet')
    data = config
    if config.train_dataloader.dataset.type != 'mmcondetr.ShapesDataset':
        data = load_config(root / 'configs/shapes/conditional-detr_r18_small_1xb16-24e_shapes.py')
    dataset = DATASETS.build(on_shapes(data, shapes).train_dataloader.dataset)
    items = [dataset[index] for index in (0, 1)]
    batch = {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}
    model.train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    total = sum(value for name, value in losses.items() if 'loss' in name)
    total.backward()
    return batch, total


def _is_grey(image):
    return bool((image[0] == image[1]).all() and (image[0] == image[2]).all())


def test_every_recipe_takes_a_step(load_config, root, shapes):
    names = sorted(path.stem for path in (root / RECIPES).glob('*.py'))
    assert len(names) == 6
    for name in names:
        config = load_config(root / RECIPES / f'{name}.py')
        config.model.backbone.init_cfg = None
        if 'bccd' in name:
            config.model.bbox_head.num_classes = 6  # those of the shapes
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        batch, total = step(model, config, load_config, root, shapes)
        assert total.isfinite() and total > 0
        assert all(_is_grey(image) for image in batch['inputs']) == (name == GREY)
        silent = {n.split('.')[0] for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        if 'frozen' in name:
            assert not any(p.requires_grad for p in model.backbone.parameters())
            assert not any(m.training for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
        else:
            assert any(p.grad is not None and p.grad.any() for p in model.backbone.parameters()), silent
        queries = 100 if '100-queries' in name else 300 if name == SWIN else 30
        assert model.query_embedding.num_embeddings == queries


def test_swin_is_mmdets_and_the_neck_fits(recipe):
    config = recipe(SWIN)
    assert config.model.backbone.type == 'mmdet.SwinTransformer' and config.model.neck.in_channels == [768]
    assert config.model.backbone.init_cfg.checkpoint.endswith('.pth') and 'depth' not in config.model.backbone


def test_means_of_weights_are_kept_and_training_ends_early(recipe, shapes, tmp_path):
    config = on_shapes(recipe('conditional-detr_r18_ema_1xb16-24e_shapes'), shapes)
    config.work_dir = str(tmp_path)
    config.custom_hooks[1].update(patience=1, min_delta=2.0)  # which no AP reaches
    config.train_cfg.max_epochs = 6
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.epoch < 6  # ended early
    (best,) = tmp_path.glob('best_coco_bbox_mAP_*.pth')
    (last,) = tmp_path.glob('epoch_*.pth')
    checkpoint = torch.load(last)
    name = 'bbox_head.class_embed.weight'
    mean, trained = checkpoint['state_dict'][name], checkpoint['ema_state_dict'][f'module.{name}']
    assert not torch.equal(mean, trained)
    torch.testing.assert_close(mean, trained, atol=0.05, rtol=0)


def test_small_data_is_the_bccd_config_in_small_batches_with_averages(load_config, root, recipe):
    plain = load_config(root / 'configs/bccd/conditional-detr_r18_small_1xb8-60e_bccd.py')
    config = recipe('conditional-detr_r18_small-data_1xb4-60e_bccd')
    assert config.model == plain.model and config.optim_wrapper == plain.optim_wrapper
    assert config.load_from and plain.train_dataloader.batch_size == 8 and config.train_dataloader.batch_size == 4
    assert [hook.type for hook in config.custom_hooks] == ['mmengine.EMAHook']


def test_what_a_grey_model_predicts_on_is_grey(recipe):
    """Detector and DetInferencer take arrays: the step that makes them grey stays in their pipeline."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    data = array_pipeline(recipe(GREY))(dict(img=pixels, img_id=0))
    assert _is_grey(data['inputs']) and data['inputs'].shape == (3, 48, 64)

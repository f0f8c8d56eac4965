"""Files of every system detect what the model detects, also in sizes not traced; a failure leaves no file."""

import copy
import errno
import resource
import sys

import numpy as np
import pytest
import torch
from exported import blocky_image, export, least
from mmengine.config import Config
from panoptic_files import CLASSES as PANOPTIC_CLASSES
from panoptic_files import METAINFO as PANOPTIC_METAINFO
from panoptic_files import panoptic_dataset, write_panoptic_shapes
from tiny_masks import TINY
from tiny_model import build, tiny_config
from tiny_variants import VARIANTS, tiny_variant

from mmcondetr import Detector as PyTorchDetector
from mmcondetr.cli import main
from mmcondetr.errors import UserError
from mmcondetr.export import exporting
from mmcondetr.export.quantizing import backbone_nodes
from mmcondetr.export.verifying import Comparison, _approximate_differences, table
from mmcondetr.runtime import Detector
from mmcondetr.runtime.sessions import open_session

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
pytest.importorskip('nncf')


# Conditional DETR is exported by the tests below, as are the variants whose operators differ; test_graph.py compares
# the graphs of all ablations in PyTorch.


def tiny_system(name):
    return least(tiny_variant(next(path for path in VARIANTS if path.stem == name)))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'detr_r50_or-fl_8xb2-50e_coco',
        'detr_r50_first-positions_8xb2-50e_coco',
        'conditional-detr_r50_block-transform_8xb2-50e_coco',
        'conditional-detr_r50_learned-reference_8xb2-50e_coco',
        'dab-detr_r50_3-patterns_8xb2-50e_coco',
    ],
)
def test_another_system_is_exported_and_verified(tmp_path, name):
    check(export(build(tiny_system(name)), tmp_path / 'model.onnx'))


@pytest.mark.slow
def test_dab_detr_with_masks_is_exported_and_verified(tmp_path):
    config = tiny_system('dab-detr_r50_8xb2-50e_coco')
    config['backbone']['out_indices'] = (0, 1)
    config['mask_head'] = dict(
        type='mmcondetr.MaskHead', embed_dims=32, num_heads=4, lateral_channels=(8,), num_groups=2, chunk=3
    )
    model = build(config)
    comparisons = export(model, tmp_path / 'model.onnx', masks=True)
    check(comparisons)
    check_that_quantising_stops_before_attention(tmp_path / 'model.onnx', model)
    image = blocky_image(120, 90)
    found = Detector(tmp_path / 'model.onnx')(image)
    assert found.masks.shape == (20, 120, 90) and found.masks.dtype == bool
    assert 0.01 < found.masks.mean() < 0.99  # or all masks would agree
    assert np.array_equal(found.above(found.scores[3]).masks, found.masks[: len(found.above(found.scores[3]))])
    alone, _ = Detector(tmp_path / 'model.onnx')([image, blocky_image(50, 80)])
    assert alone.masks.shape == (20, 120, 90)  # without the padding of a batch


@pytest.mark.slow
def test_a_panoptic_model_is_exported_by_the_command_as_detections_and_masks(tmp_path, capsys):
    """Things and stuff alike; what merges them is not in the file, so panoptic quality is not measured of it."""
    root = write_panoptic_shapes(tmp_path / 'shapes')
    settings = least(tiny_config())
    settings['backbone']['out_indices'], settings['bbox_head']['num_classes'] = (0, 1), len(PANOPTIC_CLASSES)
    settings['mask_head'] = dict(TINY, lateral_channels=(8,), panoptic=dict(num_classes=9, num_things=6))
    dataset = panoptic_dataset(root, test_mode=True)
    dataset['pipeline'].append(dict(type='mmdet.PackDetInputs'))
    evaluator = dict(
        type='mmcondetr.CocoPanopticMetric',
        ann_file=str(root / 'annotations/panoptic_val.json'),
        seg_prefix=str(root / 'panoptic_val'),
    )
    loader = dict(batch_size=1, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))
    tested = dict(test_dataloader=loader, test_evaluator=evaluator, test_cfg=dict(type='TestLoop'))
    config, checkpoint, out = (str(tmp_path / name) for name in ('panoptic.py', 'panoptic.pth', 'panoptic.onnx'))
    Config(dict(model=copy.deepcopy(settings), default_scope='mmdet', **tested)).dump(config)
    meta = dict(dataset_meta=PANOPTIC_METAINFO)
    torch.save(dict(state_dict=build(settings, seed=3).state_dict(), meta=meta), checkpoint)
    image = root / 'val/000000.png'
    assert main(['export', config, checkpoint, '--out', out, '--verify', str(image)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert 'largest differences' in said and 'merging them into a panoptic map is not in it' in said
    found = Detector(out)(image)
    assert found.masks.shape == (20, 64, 64) and 0.01 < found.masks.mean() < 0.99
    things = found.labels < 6
    assert 0 < things.sum() < len(things) and {*found.names} <= {*PANOPTIC_CLASSES}
    expected = PyTorchDetector(config, checkpoint, device='cpu').predict(image, 0.0)  # things alone, and the map
    np.testing.assert_allclose(found.boxes[things].clip(0, 64), expected.boxes, atol=1e-3)
    assert found.labels[things].tolist() == expected.labels.tolist()
    assert (found.masks[things] != expected.mask).mean() < 1e-3 and expected.panoptic.shape == (64, 64)
    assert main(['test', config, out, '--runtime', 'onnx']) == 2
    assert capsys.readouterr().err.startswith('error: --runtime: test_evaluator measures panoptic quality')
    assert main(['test', config, checkpoint, '--work-dir', str(tmp_path / 'run')]) == 0
    assert 'coco_panoptic/PQ' in capsys.readouterr().out


def check_that_quantising_stops_before_attention(path, model):
    """The mask head has convolutions after the neck's: neither they nor what is between them is the backbone."""
    import openvino

    graph = openvino.Core().read_model(path)
    chosen = backbone_nodes(graph)
    kinds = [node.get_type_name() for node in graph.get_ordered_ops() if node.get_friendly_name() in chosen]
    assert 'Softmax' not in kinds and 'MatMul' not in kinds
    convolutions = [module for module in model.backbone.modules() if isinstance(module, torch.nn.Conv2d)]
    assert kinds.count('Convolution') == len(convolutions) > 4


def check(comparisons):
    assert len(comparisons) == 4
    assert all(comparison.passed for comparison in comparisons)
    assert len({comparison.sizes for comparison in comparisons}) == 4 and len(comparisons[-1].sizes) == 2


@pytest.fixture(scope='module')
def model():
    return build(least(tiny_config()))


@pytest.fixture(scope='module')
def traced(model):
    return exporting.trace(exporting.DetectionGraph(model), None)


@pytest.fixture(scope='module')
def files(model, traced, tmp_path_factory):
    """A folder with the model as ONNX for any batch, and as OpenVINO for batches of three with an int8 backbone."""
    folder = tmp_path_factory.mktemp('exported')
    images = [blocky_image(64, 90, seed) for seed in range(4)]
    export(model, folder / 'model.xml', format='openvino', batch=3)
    with pytest.MonkeyPatch.context() as patch:  # tracing takes most of the time
        patch.setattr(exporting, 'trace', lambda graph, batch: traced)
        check(export(model, folder / 'model.onnx'))
        said: list[str] = []
        check(export(model, folder / 'int8.xml', format='openvino', calibration=images, report=said.append))
    (folder / 'int8.txt').write_text('\n'.join(said))
    return folder


@pytest.mark.slow
def test_a_fixed_batch_is_filled_and_cut(files):
    images = [blocky_image(120, 90), blocky_image(120, 90, seed=1), blocky_image(120, 90, seed=2), blocky_image(50, 50)]
    fixed, open_one = Detector(files / 'model.xml'), Detector(files / 'model.onnx')
    assert (fixed.session.batch, open_one.session.batch) == (3, None)
    results = fixed(images)
    assert len(results) == 4
    for image, found in zip(images, results):
        np.testing.assert_allclose(found.scores, open_one(image).scores, atol=1e-5)


@pytest.mark.slow
def test_openvino_reads_the_onnx_file_too(files):
    inputs = np.zeros((1, 3, 50, 60), np.uint8), np.array([[50, 60]]), np.array([[50, 60]])
    results = [open_session(files / 'model.onnx', provider).run(*inputs) for provider in ('cpu', 'openvino')]
    assert open_session(files / 'model.onnx', 'openvino').metadata == open_session(files / 'model.onnx').metadata
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)


@pytest.mark.slow
def test_the_int8_backbone_is_int8_and_nothing_else_is(files):
    import openvino

    from mmcondetr.export.quantizing import count_int8_convolutions

    session = open_session(files / 'int8.xml')
    assert session.metadata.precision == 'int8 backbone'
    model = openvino.Core().read_model(files / 'int8.xml')
    convolutions = [node for node in model.get_ops() if node.get_type_name() == 'Convolution']
    assert count_int8_convolutions(model) == len(convolutions) - 2  # all but the first and the neck's
    products = [node for node in model.get_ops() if node.get_type_name() == 'MatMul']
    assert products
    for node in products:
        assert 'FakeQuantize' not in [value.get_node().get_type_name() for value in node.input_values()]
    weights = {name: (files / name).stat().st_size for name in ('int8.bin', 'model.bin')}
    assert weights['int8.bin'] < weights['model.bin']


@pytest.mark.slow
def test_each_step_is_said_before_it_begins(files):
    said = [line.rstrip() for line in (files / 'int8.txt').read_text().splitlines()]
    steps = [
        'tracing the model and writing it as ONNX',
        'converting the ONNX file to OpenVINO',
        'comparing the file with the model in PyTorch on 2 images',
        'largest differences from the model in PyTorch (boxes in fractions of the image):',
        'images (height x width)              boxes    scores',
        'quantising the backbone to int8, calibrated with 4 images',
        'comparing the int8 file with the model in PyTorch',
    ]
    assert [line for line in said if line in steps] == [*steps, steps[4]]


@pytest.mark.slow
def test_the_file_tells_where_it_comes_from_and_nothing_of_the_machine(files):
    model = onnx.load(files / 'model.onnx')
    assert model.producer_name == 'mmcondetr'
    assert [prop.key for prop in model.metadata_props] == ['mmcondetr']
    names = [[dim.dim_param for dim in node.type.tensor_type.shape.dim] for node in model.graph.input]
    assert names[0] == ['batch', '', 'height', 'width']
    content = (files / 'model.onnx').read_bytes()
    assert b'site-packages' not in content and b'/mmcondetr/' not in content


@pytest.mark.slow
def test_a_file_that_detects_otherwise_is_not_kept(model, traced, tmp_path, monkeypatch):
    (tmp_path / 'model.onnx').write_bytes(b'the one before')
    monkeypatch.setattr(exporting, 'trace', lambda graph, batch: traced)
    other = copy.deepcopy(model)
    torch.nn.init.constant_(other.bbox_head.class_embed.bias, 0.3)
    with pytest.raises(UserError, match='differs from the model by more than 0.0001 .* on 4 of 4 batches'):
        export(other, tmp_path / 'model.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']
    assert (tmp_path / 'model.onnx').read_bytes() == b'the one before'


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_written_file(model, traced, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, 'trace', lambda graph, batch: traced)
    full = OSError(errno.ENOSPC, 'No space left on device')

    def fail(*args, **kwargs):
        raise full

    monkeypatch.setattr('pathlib.Path.write_bytes', fail)
    with pytest.raises(UserError, match=r"model\.onnx' cannot be written: No space left on device"):
        export(model, tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_of_an_openvino_file(model, traced, tmp_path, monkeypatch):
    """What OpenVINO itself writes: it is told of the disk by the system, and we by OpenVINO."""
    (tmp_path / 'model.xml').write_text('the one before')
    convert = exporting.convert_to_openvino

    def on_a_full_disk(*args):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            return convert(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(exporting, 'trace', lambda graph, batch: traced)
    monkeypatch.setattr(exporting, 'convert_to_openvino', on_a_full_disk)
    with pytest.raises(UserError, match=r"model\.xml' cannot be written: OpenVINO could not write"):
        export(model, tmp_path / 'model.xml', format='openvino')
    assert [path.name for path in tmp_path.iterdir()] == ['model.xml']
    assert (tmp_path / 'model.xml').read_text() == 'the one before'


@pytest.mark.parametrize(
    'out, options, message',
    [
        ('model.xml', {}, r'a file of format onnx must end in \.onnx'),
        ('model.onnx', dict(format='openvino'), r'must end in \.xml'),
        ('model.onnx', dict(format='tflite'), 'must be one of onnx, openvino'),
        ('gone/model.onnx', {}, "there is no folder '.*gone'"),
        ('model.onnx', dict(batch=0), "must be 'dynamic' or 1 or more, got 0"),
        ('model.onnx', dict(calibration=[blocky_image(40, 40)]), '--int8 works with --format openvino'),
    ],
)
def test_wrong_arguments_are_one_line(model, tmp_path, out, options, message):
    with pytest.raises(UserError, match=message):
        export(model, tmp_path / out, **options)
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named_with_its_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(UserError, match=r'onnxscript is not installed: pip install "mmcondetr\[export\]"'):
        export(model, tmp_path / 'model.onnx')


def test_a_comparison_passes_within_its_limit_only():
    assert Comparison(((1, 1),), 1e-4, 1e-4).passed
    assert not Comparison(((1, 1),), 2e-4, 0.0).passed
    assert not Comparison(((1, 1),), float('inf'), 0.0).passed


def test_a_file_that_approximates_is_compared_where_the_model_is_sure():
    size, far = (100, 200), [0.0, 0.0, 9.0, 9.0]
    boxes, scores, labels = np.array([[10.0, 10, 60, 60], far]), np.array([0.8, 0.2]), np.array([1, 0])
    found = np.array([far, [12.0, 10, 60, 60], [90.0, 10, 160, 60]]), np.array([0.9, 0.7, 0.6]), np.array([0, 1, 1])
    assert _approximate_differences((boxes, scores, labels), found, size) == pytest.approx((0.01, 0.1, 0.0))
    missing = (found[0], found[1], np.array([0, 0, 2]))
    assert _approximate_differences((boxes, scores, labels), missing, size)[0] == float('inf')
    unsure = (boxes, np.array([0.2, 0.1]), labels)
    assert _approximate_differences(unsure, missing, size) == (0.0, 0.0, 0.0)


def test_the_table_has_a_line_for_each_batch_and_says_what_is_too_much():
    good = Comparison(((64, 90),), 3e-7, 2e-6, 0.0)
    bad = Comparison(((64, 90), (32, 48)), 3e-4, 2e-6, 0.25)
    head, first, second = table([good, bad]).splitlines()
    assert head.split() == ['images', '(height', 'x', 'width)', 'boxes', 'scores', 'masks']
    assert first.split() == ['64x90', '3.0e-07', '2.0e-06', '0.0e+00']
    assert second.split() == ['64x90', '+', '32x48', '3.0e-04', '2.0e-06', '2.5e-01', 'too', 'much']
    assert 'too much' not in table([good, bad], limited=False)
    head, line = table([Comparison(((64, 90),), 3e-7, 2e-6)]).splitlines()  # without masks
    assert head.split()[-2:] == ['boxes', 'scores'] and line.split() == ['64x90', '3.0e-07', '2.0e-06']

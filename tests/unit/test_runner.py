"""The runner: any number of images of any size, one-line errors, and neither torch nor mmdet in the process."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from exported import CLASSES, blocky_image, export, least, metadata
from tiny_model import build, tiny_config

from mmcondetr.errors import UserError
from mmcondetr.inference.exported_detector import ExportedDetector
from mmcondetr.runtime import Detector

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
openvino = pytest.importorskip('openvino')
pytestmark = pytest.mark.slow
IMAGES = [blocky_image(120, 90), blocky_image(60, 140, seed=1), blocky_image(50, 50, seed=2)]


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export(build(least(tiny_config())), path)
    return path


def altered(file, folder, change):
    """A copy of an exported file after ``change(model)``."""
    model = onnx.load(file)
    change(model)
    onnx.save(model, folder / 'altered.onnx')
    return folder / 'altered.onnx'


def alter_metadata(**changes):
    def change(model):
        values = json.loads(model.metadata_props[0].value)
        model.metadata_props[0].value = json.dumps({**values, **changes})

    return change


def test_paths_arrays_and_lists_give_the_same(file, tmp_path):
    detector = Detector(file)
    for number, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / f'{number}.png'), image)
    paths = sorted(tmp_path.glob('*.png'))
    together = detector(paths)
    assert detector([]) == []
    for path, image, found in zip(paths, IMAGES, together):
        alone = detector(str(path))
        assert np.array_equal(alone.boxes, detector(image).boxes)
        assert len(found) == 20 and found.names == tuple(CLASSES[label] for label in found.labels)
        assert np.array_equal(found.scores, np.sort(found.scores)[::-1])
        above = found.above(float(found.scores[4]))
        assert len(above) == len(above.boxes) == len(above.names) >= 5 and above.scores.min() >= found.scores[4]


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda model: model.ClearField('metadata_props'),
            "holds no metadata 'mmcondetr' .its producer is 'mmcondetr'",
        ),
        (alter_metadata(max_detections=19), r'boxes is float32 .*20, 4\], but must be float32 \[None, 19, 4\]'),
        (alter_metadata(pad_size_divisor=20000), 'pad_size_divisor must be a positive integer up to 8192'),
        (
            alter_metadata(resize=dict(scale=[20000, 20000], keep_ratio=True, interpolation='bilinear')),
            r'resize.scale must be two numbers, each a positive integer up to 8192',
        ),
        (alter_metadata(mean=[float('nan')] * 3), 'mean must be three numbers'),
        (alter_metadata(classes='x'), 'metadata classes must be a list of names'),
        (lambda model: setattr(model.graph.output[0], 'name', 'labels2'), 'cannot be read by ONNX Runtime'),
    ],
)
def test_a_file_that_is_not_ours_or_does_not_fit_is_one_line(file, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as raised:
        Detector(altered(file, tmp_path, change))
    assert '\n' not in str(raised.value) and 'altered.onnx' in str(raised.value)


@pytest.mark.parametrize('image', [None, 3, b'photo.png'])
def test_what_is_no_image_is_one_line(file, image):
    with pytest.raises(UserError, match=f'a path or an array, not {type(image).__name__}'):
        Detector(file)(image)


def test_too_few_class_names_are_found_out(file, tmp_path):
    detector = Detector(altered(file, tmp_path, alter_metadata(classes=['one'])))
    with pytest.raises(UserError, match='it found class [1-4], and metadata classes has 1 names'):
        detector(IMAGES)


def change_output(name, kind, *more):
    """A change that passes an output through another operation."""

    def change(model):
        for node in model.graph.node:
            for names in (node.input, node.output):
                for index, value in enumerate(names):
                    names[index] = f'{name}_before' if value == name else value
        for tensor in more:
            model.graph.initializer.append(tensor)
        model.graph.node.append(onnx.helper.make_node(kind, [f'{name}_before', *(x.name for x in more)], [name]))

    return change


def test_labels_below_zero_and_what_is_not_finite_are_found_out(file, tmp_path):
    with pytest.raises(UserError, match='it found class -[1-4], and metadata classes has'):
        Detector(altered(file, tmp_path, change_output('labels', 'Neg')))(IMAGES)
    nan = onnx.numpy_helper.from_array(np.array(np.nan, np.float32), 'nan')
    for output in ('scores', 'boxes'):
        with pytest.raises(UserError, match=r"altered.onnx': a box or score that it found is not finite"):
            Detector(altered(file, tmp_path, change_output(output, 'Add', nan)))(IMAGES)


def test_another_producers_graph_is_refused(tmp_path):
    helper = onnx.helper
    info = helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [info], [out])
    made = helper.make_model(graph, producer_name='them', opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    onnx.save(made, tmp_path / 'theirs.onnx')
    with pytest.raises(UserError, match="its producer is 'them'"):
        Detector(tmp_path / 'theirs.onnx')
    with pytest.raises(UserError, match='holds no metadata'):
        Detector(tmp_path / 'theirs.onnx', provider='openvino')
    openvino.save_model(openvino.Core().read_model(tmp_path / 'theirs.onnx'), tmp_path / 'theirs.xml')
    with pytest.raises(UserError, match=r"theirs\.xml' holds no metadata"):
        Detector(tmp_path / 'theirs.xml')
    helper.set_model_props(made, dict(mmcondetr=metadata().to_json()))
    onnx.save(made, tmp_path / 'theirs.onnx')
    with pytest.raises(UserError, match='does not fit its metadata: inputs and outputs are x, y'):
        Detector(tmp_path / 'theirs.onnx')


@pytest.mark.parametrize('classes', [CLASSES[:4], (*CLASSES[:3], 'ring', 'star'), (*CLASSES, 'sixth')])
def test_it_is_not_evaluated_on_a_data_set_of_other_classes(file, classes):
    place = 4 if len(classes) == 4 else 3 if len(classes) == 5 else 5
    with pytest.raises(UserError, match=rf'names 5 classes and the data set {len(classes)}; .* {place}'):
        ExportedDetector(str(file), 'cpu', 'fp32', classes)
    assert ExportedDetector(str(file), 'cpu', 'fp32', CLASSES).runner.metadata.classes == CLASSES


@pytest.mark.parametrize(
    'name, options, message',
    [
        ('gone.onnx', {}, 'does not exist'),
        ('text.onnx', {}, 'cannot be read by ONNX Runtime'),
        ('text.onnx', dict(provider='openvino'), 'cannot be read by OpenVINO'),
        ('text.xml', {}, r"its weights 'text\.bin' are not beside it"),
        ('text.txt', {}, r'must be an exported \.onnx or \.xml file'),
        ('text.onnx', dict(provider='abacus'), "provider 'abacus' is not in this onnxruntime, which has: "),
        ('text.onnx', dict(precision='int4'), "precision must be one of fp32, bf16, got 'int4'"),
        ('text.onnx', dict(precision='bf16'), "'bf16' is for provider 'openvino'"),
        ('text.onnx', dict(threads=-3), 'threads must be 1 or more, or None .*, got -3'),
        ('text.onnx', dict(threads=True), 'threads must be 1 or more'),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, name, options, message):
    for ending in ('onnx', 'xml', 'txt'):
        (tmp_path / f'text.{ending}').write_text('hello')
    with pytest.raises(UserError, match=message) as raised:
        Detector(tmp_path / name, **options)
    assert '\n' not in str(raised.value)


PROGRAM = """
import sys
from mmcondetr.runtime import Detector
for provider in ('cpu', 'openvino'):
    print(len(Detector(sys.argv[1], provider)(sys.argv[2])))
names = {name.partition('.')[0] for name in sys.modules}
print(sorted(names & {'torch', 'mmdet', 'mmengine', 'mmcv', 'scipy', 'matplotlib', 'PIL', 'pycocotools'}))
"""


def test_the_process_holds_neither_torch_nor_mmdet(file, tmp_path, source_environment):
    cv2.imwrite(str(tmp_path / 'image.png'), IMAGES[0])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PROGRAM, file, tmp_path / 'image.png'],
        env=source_environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split('\n')[:3] == ['20', '20', '[]'], done.stderr

"""``pip install "mmcondetr[runtime]"`` in an environment that has nothing else, and the trained small model detects."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from packaging.requirements import Requirement

from mmcondetr.cli import main
from mmcondetr.datasets.shapes import generate_shapes
from mmcondetr.engine.config import find_config
from mmcondetr.export import export_detector
from mmcondetr.export.describing import describe
from mmcondetr.inference.load_detector import load_detector

pytest.importorskip('onnxscript')
pytest.importorskip('openvino')
pytestmark = pytest.mark.slow
CONFIG = 'conditional-detr_r18_small_1xb16-24e_shapes'
WEIGHTS = 'configs/shapes/conditional-detr_r18_small_shapes-start.safetensors'
PROGRAM = """
import json, sys
from mmcondetr.runtime import Detector
detector = Detector(sys.argv[1], threads=1)
found = [detections.above(0.3) for detections in detector(sys.argv[2:])]
heavy = ('torch', 'mmdet', 'mmengine', 'mmcv', 'scipy', 'matplotlib', 'onnx', 'openvino')
print(json.dumps(dict(
    found=[[f.boxes.tolist(), list(f.names)] for f in found], imported=[m for m in heavy if m in sys.modules])))
for module in heavy:
    try:
        __import__(module)
    except ImportError:
        continue
    sys.exit(f'{module} is here: this environment is not bare')
"""


def needed(requirements: list[str]) -> set[str]:
    """Distributions that these requirements want, directly or not, as this environment's own metadata say."""
    found: set[str] = set()
    waiting = [(Requirement(text), '') for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.name in found or (requirement.marker and not requirement.marker.evaluate(dict(extra=extra))):
            continue
        found.add(requirement.name)
        for text in importlib.metadata.requires(requirement.name) or ():
            waiting.append((Requirement(text), ''))
    return found


@pytest.fixture(scope='module')
def bare(wheel, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel, what its extra ``runtime`` declares, and nothing else.

    What is declared is linked from the environment that runs the tests, so that no network is needed; pip then finds
    all of it there, in the versions that the wheel asks for, or fails.
    """
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
    python = folder / 'venv' / 'bin' / 'python'
    code = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    target = Path(subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout.strip())
    for name in needed(['numpy', 'wrapt', 'onnxruntime', 'opencv-python']):
        files = importlib.metadata.files(name)
        for entry in {file.parts[0] for file in files} - {'..', '__pycache__'}:
            for source in {Path(sysconfig.get_path(kind), entry) for kind in ('purelib', 'platlib')}:
                if source.exists() and not (target / entry).exists():
                    (target / entry).symlink_to(source)
    pip = [sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet', '--no-index', f'{wheel}[runtime]']
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """The shapes data set with six held-out images."""
    folder = tmp_path_factory.mktemp('images')
    generate_shapes(folder / 'set', num_train=1, num_val=6, image_size=128)
    return folder / 'set'


@pytest.fixture(scope='module')
def exported(root, images, tmp_path_factory) -> Path:
    """The trained small model as a file."""
    file = tmp_path_factory.mktemp('exported') / 'model.onnx'
    detector = load_detector(find_config(CONFIG), str(root / WEIGHTS))
    metadata = describe(detector, Config.fromfile(find_config(CONFIG)), CONFIG, str(root / WEIGHTS))
    compared = export_detector(detector, metadata, file, verify=[cv2.imread(str(next((images / 'val').iterdir())))])
    assert len(compared) == 4 and all(comparison.passed for comparison in compared)
    return file


def test_the_runtime_extra_alone_detects(bare, images, exported):
    truth = json.loads((images / 'annotations' / 'val.json').read_text())
    paths = [images / 'val' / image['file_name'] for image in truth['images']]
    done = subprocess.run([bare, '-I', '-c', PROGRAM, exported, *paths], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['imported'] == []
    names = {category['id']: category['name'] for category in truth['categories']}
    hits = [
        any(
            name == names[annotation['category_id']] and overlap(box, annotation['bbox']) > 0.5
            for box, name in zip(*result['found'][place])
        )
        for place, image in enumerate(truth['images'])
        for annotation in truth['annotations']
        if annotation['image_id'] == image['id']
    ]
    assert len(hits) >= 10 and np.mean(hits) > 0.5  # at scores of 0.3; AP50 is 0.86 on such images


def test_the_example_detects_in_a_folder(bare, images, exported, root, tmp_path):
    command = [bare, '-I', root / 'examples' / 'detect_folder.py', exported, images / 'val', tmp_path / 'out.json']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'out.json').read_text())
    assert sorted(results) == sorted(path.name for path in (images / 'val').iterdir())
    assert all(len(found['boxes']) == len(found['names']) == len(found['scores']) for found in results.values())
    assert sum(len(found['names']) for found in results.values()) > 6 and 'objects' in done.stdout


def test_the_example_leaves_out_what_is_no_image_and_names_wrong_arguments(bare, images, exported, root, tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'a.png').write_bytes(b'no image')
    shutil.copy(next((images / 'val').iterdir()), tmp_path / 'photos' / 'b.png')
    script = [bare, '-I', root / 'examples' / 'detect_folder.py', exported]
    done = subprocess.run([*script, tmp_path / 'photos', tmp_path / 'out.json'], capture_output=True, text=True)
    assert done.returncode == 0 and list(json.loads((tmp_path / 'out.json').read_text())) == ['b.png']
    assert done.stderr.startswith('left out: ') and 'a.png' in done.stderr
    for arguments in ([tmp_path, tmp_path / 'x.json'], [tmp_path / 'photos', tmp_path / 'none' / 'x.json']):
        done = subprocess.run([*script, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith('error: ') and done.stderr.count('\n') == 1


def test_what_needs_more_than_the_extra_says_so(bare):
    done = subprocess.run([bare, '-I', '-m', 'mmcondetr', 'export', 'a', 'b'], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: 'mmengine' is not installed: install mmcondetr with")
    code = 'from mmcondetr import Detector'
    done = subprocess.run([bare, '-I', '-c', code], capture_output=True, text=True)
    assert 'ImportError: mmcondetr.Detector: ' in done.stderr and 'mmcondetr.runtime.Detector' in done.stderr


def test_the_file_has_the_models_ap(images, exported, root, tmp_path, monkeypatch):
    monkeypatch.setenv('SHAPES_ROOT', f'{images}/')
    options = ['--cfg-options', 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    found = {}
    for name, arguments in dict(
        torch=[str(root / WEIGHTS)],
        onnx=[str(exported), '--runtime', 'onnx'],
        openvino=[str(exported), '--runtime', 'openvino'],
    ).items():
        work_dir = tmp_path / name
        assert main(['test', CONFIG, *arguments, '--work-dir', str(work_dir), *options]) == 0
        (log,) = work_dir.glob('*/*.json')
        found[name] = json.loads(log.read_text().splitlines()[-1])['coco/bbox_mAP']
    assert found['torch'] > 0.4
    assert found == pytest.approx(dict.fromkeys(found, found['torch']), abs=1e-3)


def overlap(box: list[float], xywh: list[float]) -> float:
    """Intersection over union of a box xyxy and one as corner and size, in pixels."""
    x, y, width, height = xywh
    sides = min(box[2], x + width) - max(box[0], x), min(box[3], y + height) - max(box[1], y)
    inside = max(0.0, sides[0]) * max(0.0, sides[1])
    return inside / ((box[2] - box[0]) * (box[3] - box[1]) + width * height - inside)

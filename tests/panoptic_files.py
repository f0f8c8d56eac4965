"""Small sets of shapes with masks and panoptic annotations, for tests."""

from __future__ import annotations

import json
from pathlib import Path

from mmcondetr.datasets.shapes import SHAPES_CLASSES, generate_shapes
from mmcondetr.datasets.shapes_panoptic import STUFF_CLASSES

CLASSES = (*SHAPES_CLASSES, *STUFF_CLASSES)
METAINFO = dict(classes=CLASSES, thing_classes=SHAPES_CLASSES, stuff_classes=STUFF_CLASSES)


def write_panoptic_shapes(root: Path, num_val: int = 4) -> Path:
    """Two training and some held-out images of 64 x 64 pixels."""
    generate_shapes(root, num_train=2, num_val=num_val, image_size=64, panoptic=True)
    return root


def edit_json(path: Path, change) -> None:
    """Apply ``change`` to the content of a JSON file."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def panoptic_dataset(root: Path, **changes) -> dict:
    """Config of the held-out images."""
    return dict(
        type='mmcondetr.CocoPanopticDataset',
        data_root=str(root),
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='val/', seg='panoptic_val/'),
        metainfo=METAINFO,
        pipeline=[dict(type='mmcondetr.LoadImage'), dict(type='mmcondetr.LoadPanoptic')],
        **changes,
    )

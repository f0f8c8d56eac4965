"""Generated mutations of annotation files and checkpoints: read in full, or refused by the error that says why.

``make torture`` tries thousands by its own seeded generator, which can name each attempt and do it again alone; here
hypothesis finds the smallest. It is derandomized: the same examples every time.
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile

import numpy as np
import pytest
import torch
from annotation_data import CLASSES, make
from mmengine.logging import HistoryBuffer

from mmcondetr.checkpoints.reading import read
from mmcondetr.datasets.annotations import examine
from mmcondetr.datasets.coco import CocoDataset
from mmcondetr.errors import UserError

pytest.importorskip('hypothesis', reason='a machine with a GPU need not have it')
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

FIXED = dict(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(['id', 'bbox', 'name']), inner),
    max_leaves=4,
)


def places(data, at=()) -> list[tuple]:
    children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at] + [place for key, value in children for place in places(value, (*at, key))]


GOOD = make(count=3)
GOOD['images'] = GOOD['images'][:3]
PLACES = places(GOOD)


@settings(max_examples=70, **FIXED)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_an_annotation_file_with_anything_anywhere(tmp_path_factory, place, value):
    data = json.loads(json.dumps(GOOD))
    parent = dict(root=data)
    for key in ('root', *place)[:-1]:
        parent = parent[key]
    parent[('root', *place)[-1]] = value
    data = data if place else value
    path = tmp_path_factory.getbasetemp() / 'mutated.json'
    path.write_text(json.dumps(data))
    report = examine(str(path), CLASSES)
    try:
        with warnings.catch_warnings(record=True):
            dataset = CocoDataset(
                ann_file=str(path), metainfo=dict(classes=CLASSES), data_prefix=dict(img=''), check_images=False
            )
    except UserError as error:
        assert report.errors and str(path) in str(error)
        return
    assert not report.errors, 'what has errors is not trained on'
    boxes = np.concatenate([np.zeros((0, 4)), *(
        [entry['bbox'] for entry in dataset.get_data_info(index)['instances']] for index in range(len(dataset))
        if dataset.get_data_info(index)['instances']
    )])  # fmt: skip
    ignored = [entry for entry in data['annotations'] if entry.get('ignore')]
    assert len(boxes) >= 3 - len(ignored) or report.warnings, 'what is left out is said'
    assert all(map(math.isfinite, boxes.ravel()))


def _checkpoint() -> tuple[dict[str, bytes], str]:
    """The records of a small checkpoint with everything that one holds, and which of them is the pickle."""
    buffer = io.BytesIO()
    state = dict(weight=torch.arange(6.0).reshape(2, 3), bias=torch.zeros(2, dtype=torch.bfloat16))
    hub = dict(log_scalars=dict(loss=HistoryBuffer([1.0, 2.0], [1, 1])), runtime_info=dict(iter=3, lr=np.float64(0.1)))
    torch.save(dict(state_dict=state, meta=dict(epoch=1, names=('a', 'b')), message_hub=hub), buffer)
    with zipfile.ZipFile(buffer) as archive:
        records = {item.filename: archive.read(item) for item in archive.infolist()}
    return records, next(name for name in records if name.endswith('/data.pkl'))


RECORDS, PICKLE = _checkpoint()
CHANGES = st.lists(
    st.tuples(st.integers(0, len(RECORDS[PICKLE]) - 1), st.integers(0, 2), st.binary(min_size=1, max_size=3)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=250, **FIXED)
@given(changes=CHANGES)
def test_a_checkpoint_whose_pickle_is_another(tmp_path_factory, changes):
    """The archive is whole, its checksums are right: what remains is what the stream itself may do."""
    stream = bytearray(RECORDS[PICKLE])
    for position, removed, inserted in changes:
        stream[position : position + removed] = inserted
    path = tmp_path_factory.getbasetemp() / 'mutated.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in {**RECORDS, PICKLE: bytes(stream)}.items():
            archive.writestr(name, content)
    try:
        loaded = read(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    assert isinstance(loaded, dict)
    tensors = loaded.get('state_dict')
    for value in tensors.values() if isinstance(tensors, dict) else ():
        if isinstance(value, torch.Tensor):
            value.sum()  # all of it is there

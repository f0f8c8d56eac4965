"""The metadata of an exported file survives a round trip through JSON; an error names the damaged field."""

import json

import pytest
from exported import metadata

from mmcondetr.errors import UserError
from mmcondetr.runtime.metadata import parse


@pytest.mark.parametrize('changes', [{}, dict(resize=None, palette=((1, 2, 3),) * 5)])
def test_there_and_back(changes):
    written = metadata(**changes)
    assert parse(written.to_json(), 'a.onnx') == written


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda values: values.pop('classes'), "'a.onnx': its metadata lacks classes"),
        (lambda values: values.update(colour=1), 'has the unknown field colour'),
        (lambda values: values.update(format=2), 'has format 2'),
        (lambda values: values.update(classes=[]), 'metadata classes must be a list of names'),
        (lambda values: values.update(mean=[1, 2]), 'metadata mean must be three numbers'),
        (lambda values: values.update(std=[1, 0, 1]), 'metadata std must be three positive numbers'),
        (lambda values: values.update(max_detections=True), 'max_detections must be a positive integer'),
        (
            lambda values: values['resize'].update(scale=[0, 3]),
            'resize.scale must be two numbers, each a positive integer',
        ),
        (lambda values: values['resize'].pop('keep_ratio'), 'lacks keep_ratio .at .resize'),
        (lambda values: values['resize'].update(interpolation='magic'), 'must be nearest, bilinear'),
    ],
)
def test_damage_names_the_field(change, message):
    values = json.loads(metadata().to_json())
    change(values)
    with pytest.raises(UserError, match=message):
        parse(json.dumps(values), 'a.onnx')


@pytest.mark.parametrize('text, message', [('{', 'is not JSON'), ('[]', 'is a list, not an object')])
def test_what_is_no_object_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse(text, 'a.onnx')

"""mmdet's DetInferencer, whose inputs are checked and may be optimised.

The option is that of :func:`~mmcondetr.inference.optimize.optimize_for_inference`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.apis import DetInferencer as MMDetInferencer
from mmdet.datasets.transforms import InferencerLoader

from mmcondetr.checkpoints.http_requests import fetch
from mmcondetr.datasets.load_image import LoadImage
from mmcondetr.engine.config import find_config
from mmcondetr.errors import UserError
from mmcondetr.inference.optimize import PRECISIONS, optimize_for_inference
from mmcondetr.runtime.encoded import MOST_PIXELS, too_thin

_MOST_BYTES = 3 * MOST_PIXELS  # of an image at a URL: those of the largest one, decoded


class _LoadInput(LoadImage):
    """Reads URLs, too, with limits: mmengine reads whatever a server sends, however much it is.

    Attributes:
        fetched: encoded images by their URLs, to be drawn on; whoever draws removes them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        vars(self).update(settings)
        self.fetched: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        if path.lower().startswith(('http://', 'https://')):
            self.fetched[path] = fetch(path, _MOST_BYTES)
            return self.fetched[path]
        try:
            return super().read(path)
        except KeyError as error:
            raise UserError(f"Image '{path}': mmengine knows no storage {error}.") from error


def _check_input(given: Any, name: str) -> None:
    """Raises UserError if ``given`` is no image: a path or URL, an array, or mmdet's dict with one of them."""
    image, kinds = given, (str, np.ndarray)
    if isinstance(given, dict):
        key, kinds = ('img', np.ndarray) if 'img' in given else ('img_path', str)
        image, name = given.get(key), f'{name}[{key!r}]'
    if not isinstance(image, kinds):
        raise UserError(
            f'DetInferencer: an image is a path or URL (str) or an array, or a list of them; {name} is of type '
            f'{type(image).__name__}.'
        )
    if isinstance(image, str):
        return
    dtype = image.dtype
    if (
        image.ndim != 3
        or image.shape[2] not in (3, 4)  # of four, mmdet ignores the last
        or 0 in image.shape
        or not (dtype.kind in 'uif' and dtype.isnative and dtype.itemsize <= 8)
    ):
        raise UserError(
            'DetInferencer: an image array is (height, width, 3), BGR, of uint8 or another type of numbers; '
            f'{name} is {image.shape} of {dtype.str if not dtype.isnative else dtype}.'
        )
    if dtype.kind == 'f' and not np.isfinite(image).all():
        raise UserError(f'DetInferencer: {name} has values that are not finite (NaN or infinity).')
    wrong = too_thin((image.shape[1], image.shape[0]))
    if wrong is not None:
        raise UserError(f'DetInferencer: {name} {wrong}')


class DetInferencer(MMDetInferencer):
    """mmdet's DetInferencer, optionally optimised for inference.

    Images are read as :class:`mmcondetr.datasets.load_image.LoadImage` reads them, with its limits, from URLs, too.
    Inputs of other types, and arrays of another shape or type or with NaN, are a UserError before any prediction.

    Args:
        model: a config, its path or its name, as in mmdet; also the name of one of our configs.
        args: mmdet's arguments: weights, device, ...
        optimize: 'fp32', 'bf16' or 'fp16'; None leaves the model unchanged.
        compile: also use torch.compile; requires ``optimize``.
        keep_memory: also change the process's allocator for speed; requires ``optimize``; see
            :func:`~mmcondetr.inference.optimize.optimize_for_inference`.
        kwargs: mmdet's keyword arguments.

    Raises:
        UserError: ``optimize`` is unknown, or ``compile`` or ``keep_memory`` is given without it.
    """

    def __init__(
        self,
        model: Any = None,
        *args: Any,
        optimize: str | None = None,
        compile: bool = False,
        keep_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        if optimize not in (None, *PRECISIONS):
            raise UserError(f"DetInferencer: optimize must be one of {', '.join(PRECISIONS)} or None, got '{optimize}'")
        for name, given in (('compile', compile), ('keep_memory', keep_memory)):
            if given and not optimize:
                raise UserError(f"DetInferencer: {name} needs optimize, such as optimize='fp32'")
        if isinstance(model, str):
            with suppress(UserError):  # not ours; mmdet resolves or rejects it
                model = find_config(model)
        super().__init__(model, *args, **kwargs)
        if optimize:
            optimize_for_inference(self.model, PRECISIONS[optimize], compile, keep_memory)

    def _init_pipeline(self, cfg: Any) -> Any:
        pipeline = super()._init_pipeline(cfg)
        for step in pipeline.transforms:
            if isinstance(step, InferencerLoader):
                step.from_file = self._loader = _LoadInput(vars(step.from_file))
        return pipeline

    def _inputs_to_list(self, inputs: Any) -> list:
        several = isinstance(inputs, (list, tuple))
        for index, given in enumerate(inputs if several else [inputs]):
            _check_input(given, f'inputs[{index}]' if several else 'inputs')
        try:
            return super()._inputs_to_list(inputs)
        except KeyError as error:
            raise UserError(f"Image '{inputs}': mmengine knows no storage {error}.") from error

    def visualize(self, inputs: Sequence[Any], preds: Any, **options: Any) -> Any:
        """mmdet's, which reads the images again; those at URLs it gets as files of the same names."""
        fetched, self._loader.fetched = self._loader.fetched, {}
        if not any(options.get(name) for name in ('show', 'return_vis', 'img_out_dir')):
            return super().visualize(inputs, preds, **options)
        with tempfile.TemporaryDirectory() as folder:
            return super().visualize([_as_file(given, fetched, folder) for given in inputs], preds, **options)


def _as_file(given: Any, fetched: dict[str, bytes], folder: str) -> Any:
    """The path of a file with what was fetched from a URL; anything else is returned unchanged."""
    if not isinstance(given, str) or given not in fetched:
        return given
    name = os.path.basename(given).replace('\0', '').encode(errors='ignore')[-255:].decode(errors='ignore')
    path = Path(tempfile.mkdtemp(dir=folder), 'image' if name in ('', '.', '..') else name)
    path.write_bytes(fetched[given])
    return str(path)

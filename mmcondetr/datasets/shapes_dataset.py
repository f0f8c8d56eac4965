"""The generated shapes as a data set that draws itself on first use."""

from __future__ import annotations

import os
import warnings

from mmengine.dist import barrier, is_main_process

from mmcondetr.datasets.coco import CocoDataset
from mmcondetr.datasets.shapes import MARKER, SHAPES_CLASSES, SHAPES_PALETTE, generate_shapes, read_marker
from mmcondetr.registry import DATASETS


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """The set at ``data_root``, drawn there if there is none; an existing one is used, with a warning where it differs.

    Args:
        generate: Arguments of :func:`~mmcondetr.datasets.shapes.generate_shapes` for drawing, such as ``num_train``.
    """

    METAINFO = dict(classes=SHAPES_CLASSES, palette=list(SHAPES_PALETTE))

    def __init__(self, *args, generate: dict | None = None, **kwargs) -> None:
        self.generate = dict(generate or {})
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draws the set if need be: the first process, then, where nodes share no disk, the first of each to look."""
        if is_main_process():
            self._draw_if_absent()
        barrier()
        self._draw_if_absent()
        self._compare()
        return super().load_data_list()

    def _draw_if_absent(self) -> None:
        if self.data_root and not os.path.isfile(os.path.join(self.data_root, MARKER)):
            generate_shapes(self.data_root, **self.generate)

    def _compare(self) -> None:
        found = read_marker(self.data_root) or {}
        other = {name: found.get(name) for name, value in self.generate.items() if found.get(name) != value}
        if other:
            warnings.warn(
                f"'{self.data_root}' holds a shapes data set with {other}, where the config's "
                f'dataset.generate asks for {self.generate}: it is used as it is. Remove the folder, or set '
                'SHAPES_ROOT or data_root to another one.',
                stacklevel=2,
            )

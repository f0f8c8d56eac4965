"""The generated shapes as data sets that are drawn on first use."""

from __future__ import annotations

import os
import warnings

from mmengine.dist import barrier, is_main_process

from mmcondetr.datasets.coco import CocoDataset
from mmcondetr.datasets.coco_panoptic import CocoPanopticDataset
from mmcondetr.datasets.shapes import MARKER, SHAPES_CLASSES, SHAPES_PALETTE, generate_shapes, read_marker
from mmcondetr.datasets.shapes_panoptic import STUFF_CLASSES, STUFF_PALETTE
from mmcondetr.registry import DATASETS


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """The set at ``data_root``, drawn if there is none; an existing one is used, with a warning if it differs.

    Args:
        generate: Arguments of :func:`~mmcondetr.datasets.shapes.generate_shapes` for drawing, such as ``num_train``.
    """

    METAINFO = dict(classes=SHAPES_CLASSES, palette=list(SHAPES_PALETTE))

    def __init__(self, *args, generate: dict | None = None, **kwargs) -> None:
        self.generate = dict(generate or {})
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draws the set if need be."""
        _draw(self.data_root, self.generate)
        return super().load_data_list()


@DATASETS.register_module()
class PanopticShapesDataset(CocoPanopticDataset):
    """Like :class:`ShapesDataset`, in the panoptic form: six kinds of shapes over three kinds of stuff.

    Args:
        generate: Arguments of :func:`~mmcondetr.datasets.shapes.generate_shapes` for drawing, such as ``num_train``.
    """

    METAINFO = dict(
        classes=SHAPES_CLASSES + STUFF_CLASSES,
        thing_classes=SHAPES_CLASSES,
        stuff_classes=STUFF_CLASSES,
        palette=[*SHAPES_PALETTE, *STUFF_PALETTE],
    )

    def __init__(self, *args, generate: dict | None = None, **kwargs) -> None:
        self.generate = dict(generate or {}, panoptic=True)
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draws the set if need be."""
        _draw(self.data_root, self.generate)
        return super().load_data_list()


def _draw(root: str, generate: dict) -> None:
    """Draw the set in the first process; if nodes share no disk, also in the first process of each node."""
    if is_main_process():
        _draw_if_absent(root, generate)
    barrier()
    _draw_if_absent(root, generate)
    found = read_marker(root) or {}
    other = {name: found.get(name) for name, value in generate.items() if found.get(name) != value}
    if other:
        warnings.warn(
            f"'{root}' holds a shapes data set with {other}, where the config's "
            f'dataset.generate specifies {generate}: it is used unchanged. Remove the folder, or set '
            'SHAPES_ROOT or data_root to another one.',
            stacklevel=3,
        )


def _draw_if_absent(root: str, generate: dict) -> None:
    if root and not os.path.isfile(os.path.join(root, MARKER)):
        generate_shapes(root, **generate)

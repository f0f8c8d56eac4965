"""mmdet's DetInferencer recognises only mmcv's image loading transform; this adds ours."""

from __future__ import annotations

from typing import Any


def patch_det_inferencer(inferencer: type) -> None:
    """Let mmdet's ``DetInferencer`` find ``mmcondetr.LoadImage`` in a test pipeline."""
    original = inferencer._get_transform_idx
    if getattr(original, 'knows_mmcondetr', False):
        return

    def get_transform_idx(self: Any, pipeline: list, name: Any) -> int:
        # The maintained fork compares names without their scope.
        ours = ('mmcondetr.LoadImage', 'LoadImage') if 'LoadImageFromFile' in name else ()
        return original(self, pipeline, (*((name,) if isinstance(name, str) else name), *ours))

    get_transform_idx.knows_mmcondetr = True
    inferencer._get_transform_idx = get_transform_idx

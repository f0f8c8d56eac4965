"""Conditional DETR (Meng et al., ICCV 2021, arXiv 2108.06152) for MMDetection 3.x.

``import mmcondetr`` registers every module of the package in scope ``mmcondetr``, so that a config can name them
(``type='mmcondetr.ConditionalDETR'``) and inherit from ours (``_base_ = 'mmcondetr::conditional_detr/....py'``).
Import it before anything of mmdet: it makes mmdet importable where only mmcv-lite is installed (see compat.py).
"""

from mmcondetr import compat

__version__ = '0.1.0'

compat.prepare()

from mmcondetr import checkpoints, datasets, engine, models  # noqa: E402  (mmdet must not be imported before compat has run)

compat.teach_inferencer()

__all__ = ['__version__', 'checkpoints', 'datasets', 'engine', 'models']

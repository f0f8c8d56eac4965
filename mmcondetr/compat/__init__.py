"""Compatibility of mmdet 3.3, mmengine 0.10 and mmcv-lite 2.1 with current PyTorch.

mmcv_stand_in.py   mmdet without mmcv's compiled ops
mmcv_ops.py        the compiled ops that a DETR needs on a GPU, in PyTorch
config_scope.py    ``_base_ = 'mmcondetr::...'`` in configs
config_text.py     a config's text formatted once, not for each checkpoint
safe_loading.py    reading checkpoints without executing code
torch_archive.py   the ZIP archive around a checkpoint, which no two readers may see in two ways
plain_values.py    the values that a checkpoint may contain
resume_errors.py   errors when resuming from an invalid file
stored_configs.py  never execute configs stored in checkpoints
inferencer.py      mmdet's DetInferencer with our image loading
compiling.py       ``is_compiling`` for all versions of torch

Importing this package imports none of them; the first two work without torch.
"""

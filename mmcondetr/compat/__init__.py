"""What mmdet 3.3, mmengine 0.10 and mmcv-lite 2.1 need to work together with today's PyTorch: nothing else lives here.

mmcv_stand_in.py   mmdet without mmcv's compiled ops
mmcv_ops.py        the compiled ops that a DETR needs on a GPU, in PyTorch
config_scope.py    ``_base_ = 'mmcondetr::...'``
safe_loading.py    checkpoints that are read without running code
plain_values.py    what a checkpoint may hold
resume_errors.py   what is wrong with a file that is resumed
stored_configs.py  configs inside checkpoints are never run
compiling.py       ``is_compiling``, wherever torch has it

Importing this package imports none of them: the first two work without torch.
"""

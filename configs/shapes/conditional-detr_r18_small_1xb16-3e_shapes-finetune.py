# What `make demo` runs: three epochs more of the trained start that ships beside this file.
_base_ = './conditional-detr_r18_small_1xb16-24e_shapes.py'

load_from = '{{ fileDirname }}/conditional-detr_r18_small_shapes-start.safetensors'
optim_wrapper = dict(optimizer=dict(lr=4e-5))
train_cfg = dict(max_epochs=3, val_interval=1)
param_scheduler = [dict(type='MultiStepLR', begin=0, end=3, by_epoch=True, milestones=[2], gamma=0.1)]
default_hooks = dict(logger=dict(interval=10))

# What `make demo` trains: the shipped model's backbone, the rest from scratch, six groups of queries, three epochs.
_base_ = './conditional-detr_r18_small_1xb4-24e_shapes.py'

start = '{{ fileDirname }}/conditional-detr_r18_small_shapes-start.safetensors'
model = dict(
    backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=start, prefix='backbone.')),
    training_queries=dict(type='mmcondetr.QueryGroups', num_groups=6),
)
train_cfg = dict(max_epochs=3, val_interval=1)
param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False)]
default_hooks = dict(logger=dict(interval=10))

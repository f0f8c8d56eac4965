# What `make demo` trains: the shipped model's backbone, the rest from scratch, six groups of queries, five epochs.
_base_ = './conditional-detr_r18_small_1xb16-24e_shapes.py'

start = '{{ fileDirname }}/conditional-detr_r18_small_shapes-start.safetensors'
model = dict(
    backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=start, prefix='backbone.')),
    training_queries=dict(type='mmcondetr.QueryGroups', num_groups=6),
)
train_cfg = dict(max_epochs=5, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=50, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=5, by_epoch=True, milestones=[4], gamma=0.1),
]
default_hooks = dict(logger=dict(interval=10))

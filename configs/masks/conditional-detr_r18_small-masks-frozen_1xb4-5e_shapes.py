# Five more epochs for the mask head of the 20, in small batches: many steps at a rate that falls to nearly nothing.
_base_ = './conditional-detr_r18_small-masks-frozen_1xb16-20e_shapes.py'

load_from = 'work_dirs/conditional-detr_r18_small-masks-frozen_1xb16-20e_shapes/epoch_20.pth'
train_dataloader, auto_scale_lr = dict(batch_size=4), dict(base_batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=5, val_interval=1)
param_scheduler = [
    dict(type='CosineAnnealingLR', begin=0, end=5, T_max=5, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)
]

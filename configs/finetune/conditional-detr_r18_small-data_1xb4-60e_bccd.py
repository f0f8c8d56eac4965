# A few hundred photos: the small model's weights, batches of 4, and the moving average of the weights evaluated.
# Data: BCCD_ROOT=/path/to/bccd/
_base_ = '../bccd/conditional-detr_r18_small_1xb8-60e_bccd.py'

train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
# The average is over some 100 steps; update_buffers: BatchNorm's statistics, too, which this model trains.
custom_hooks = [
    dict(type='mmengine.EMAHook', ema_type='mmengine.ExponentialMovingAverage', momentum=0.01, update_buffers=True)
]

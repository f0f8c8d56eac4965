# Four times as many steps in an epoch, and the moving average of the weights is evaluated: docs/training-faster.md.
_base_ = './conditional-detr_r18_small_1xb16-24e_shapes.py'

train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
# update_buffers: the average includes BatchNorm's statistics, which this model trains.
custom_hooks = [
    dict(type='mmengine.EMAHook', ema_type='mmengine.ExponentialMovingAverage', momentum=0.005, update_buffers=True)
]

# The moving average of the weights is evaluated and saved; training ends when AP has not improved for five evaluations;
# the best checkpoint is kept beside the last ones.
_base_ = '../shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'

custom_hooks = [
    dict(type='mmengine.EMAHook', ema_type='mmengine.ExponentialMovingAverage', momentum=0.002, update_buffers=True),
    dict(type='mmengine.EarlyStoppingHook', monitor='coco/bbox_mAP', rule='greater', min_delta=0.001, patience=5),
]
train_cfg = dict(val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))

# DC5, as in conditional-detr_r50-dc5.py.
_base_ = './detr_r50.py'

model = dict(backbone=dict(type='mmcondetr.ResNetDC5'))
train_dataloader = dict(batch_size=1)
val_dataloader = dict(batch_size=1)
test_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)

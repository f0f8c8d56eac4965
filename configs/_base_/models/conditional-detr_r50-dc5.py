# DC5: stage 5 keeps stride 16 and is dilated like torchvision's replace_stride_with_dilation, unlike mmdet's
# ResNet(dilations=...). One image per GPU with the learning rate unchanged, and one per batch when testing: padding
# costs DC5 models AP, as the authors' README states. detr_r50-dc5.py and dab-detr_r50-dc5.py repeat these lines:
# mmengine refuses two bases that set one key, so they cannot be a base of their own.
_base_ = './conditional-detr_r50.py'

model = dict(backbone=dict(type='mmcondetr.ResNetDC5'))
train_dataloader = dict(batch_size=1)
val_dataloader = dict(batch_size=1)
test_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)

# Conditional DETR-R50 with masks of COCO's 80 things and 53 kinds of stuff, boxes and masks trained together.
_base_ = './conditional-detr_r50.py'
panoptic = dict(num_classes=133, num_things=80)
model = dict(
    backbone=dict(out_indices=(0, 1, 2, 3)),
    bbox_head=dict(num_classes=133),
    mask_head=dict(type='mmcondetr.MaskHead', panoptic=panoptic),
)
load = dict(type='mmcondetr.LoadPanoptic')
kind, folder = 'mmcondetr.CocoPanopticDataset', 'annotations/panoptic_'
train = dict(img='train2017/', seg=f'{folder}train2017/', _delete_=True)
val = dict(img='val2017/', seg=f'{folder}val2017/', _delete_=True)
train_pipeline = [_base_.train_pipeline[0], load, *_base_.train_pipeline[2:]]  # noqa: F821
test_pipeline = [*_base_.test_pipeline[:2], load, *_base_.test_pipeline[3:]]  # noqa: F821
train_dataloader = dict(
    dataset=dict(type=kind, ann_file=f'{folder}train2017.json', data_prefix=train, pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(type=kind, ann_file=f'{folder}val2017.json', data_prefix=val, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_set = f'{_base_.data_root}{folder}val2017'  # noqa: F821
val_evaluator = dict(
    type='mmcondetr.CocoPanopticMetric', ann_file=f'{val_set}.json', seg_prefix=f'{val_set}/', _delete_=True
)
test_evaluator = val_evaluator

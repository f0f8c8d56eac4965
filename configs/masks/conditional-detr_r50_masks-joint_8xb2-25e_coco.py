# Boxes and masks trained together, from the authors' detector.
_base_ = './conditional-detr_r50_masks-frozen_8xb2-25e_coco.py'
model = dict(mask_head=dict(freeze_detector=False))

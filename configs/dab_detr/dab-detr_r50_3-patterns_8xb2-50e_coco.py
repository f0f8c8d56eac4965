_base_ = './dab-detr_r50_8xb2-50e_coco.py'

model = dict(decoder=dict(reference_point=dict(type='mmcondetr.PatternAnchorBoxes', num_patterns=3)))

_base_ = './dab-detr_r50-dc5_8xb1-50e_coco.py'

model = dict(decoder=dict(reference_point=dict(type='mmcondetr.PatternAnchorBoxes', num_patterns=3)))

_base_ = './conditional-detr_r50_8xb2-12e_coco.py'

model = dict(training_queries=dict(type='mmcondetr.QueryGroups', num_groups=11))

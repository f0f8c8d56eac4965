_base_ = '../conditional_detr/conditional-detr_r101_8xb2-50e_coco.py'

model = dict(training_queries=dict(type='mmcondetr.QueryGroups', num_groups=11))

_base_ = '../conditional_detr/conditional-detr_r101-dc5_8xb1-50e_coco.py'

model = dict(training_queries=dict(type='mmcondetr.QueryGroups', num_groups=11))

_base_ = './dab-detr_r50-dc5_8xb1-12e_coco.py'

model = dict(training_queries=dict(type='mmcondetr.QueryGroups', num_groups=11))

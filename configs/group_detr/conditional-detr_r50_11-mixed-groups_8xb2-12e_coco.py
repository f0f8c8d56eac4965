# A control: the groups see each other in self-attention.
_base_ = './conditional-detr_r50_11-groups_8xb2-12e_coco.py'

model = dict(training_queries=dict(type='mmcondetr.MixedQueryGroups'))

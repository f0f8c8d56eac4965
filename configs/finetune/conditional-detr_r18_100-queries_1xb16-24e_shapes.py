# More queries, for images with more objects. Object queries are learned, so a checkpoint with another number of
# them does not fit. max_per_img is the maximum number of detections per image.
_base_ = '../shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'

model = dict(num_queries=100, test_cfg=dict(max_per_img=100))

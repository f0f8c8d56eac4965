# More queries, for images with more objects. Object queries are learned: a checkpoint has its own number of them, and
# one of another number does not fit. max_per_img is how many detections an image may have.
_base_ = '../shapes/conditional-detr_r18_small_1xb16-24e_shapes.py'

model = dict(num_queries=100, test_cfg=dict(max_per_img=100))

# The paper's choice everywhere: CSQ, the diagonal transform, the predicted reference point, OR + FL + CSQ.
_base_ = '../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'

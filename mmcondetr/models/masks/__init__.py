"""Instance and panoptic masks for the detections of a DETR (DETR, arXiv 2005.12872, section 4.4)."""

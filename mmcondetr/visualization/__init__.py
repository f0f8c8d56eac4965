"""Recording attention, drawing the paper's figures, the explorer page, and statistics over a data set."""

from mmcondetr.datasets.read_image import read_image
from mmcondetr.visualization.attend import AttendedImage, Detection, attend
from mmcondetr.visualization.explorer import write_explorer
from mmcondetr.visualization.figures import draw_attention, draw_comparison
from mmcondetr.visualization.image_attention import ImageAttention, Recorded
from mmcondetr.visualization.maps import AttentionMaps
from mmcondetr.visualization.record import record_attention

__all__ = [
    'AttendedImage',
    'AttentionMaps',
    'Detection',
    'ImageAttention',
    'Recorded',
    'attend',
    'draw_attention',
    'draw_comparison',
    'read_image',
    'record_attention',
    'write_explorer',
]

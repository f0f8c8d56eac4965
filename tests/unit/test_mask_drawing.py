"""Masks and panoptic maps drawn on an image."""

import numpy as np

from mmcondetr.inference.mask_drawing import grid_of, paint_masks, paint_panoptic, place_names

GREY = np.full((6, 8, 3), 100, np.uint8)


def test_masks_are_painted_in_their_colours_and_nothing_else_is():
    masks = np.zeros((2, 6, 8), bool)
    masks[0, 1:5, 1:5], masks[1, 2:6, 3:8] = True, True
    picture = paint_masks(GREY, masks, [(255, 0, 0), (0, 0, 255)], scale=5)
    assert picture.shape == (30, 40, 3)
    assert (picture[:3] == 100).all()
    red, blue = picture[12, 12].tolist(), picture[22, 30].tolist()
    assert red[2] > 150 > 50 > red[0] and blue[0] > 150 > 50 > blue[2]
    assert picture[17, 20, 0] > 150 > 100 > picture[17, 20, 2], 'the last one is on top'
    assert (GREY == 100).all()


def test_panoptic_maps_have_a_colour_a_class_lines_between_segments_and_void():
    sem_seg = np.full((6, 8), 2)  # void
    sem_seg[:, :2], sem_seg[:, 2:4], sem_seg[3:, 4:6] = 1000, 2000, 1
    picture = paint_panoptic(GREY, sem_seg, [(255, 0, 0), (0, 255, 0)], scale=4)
    assert picture[2, 2].tolist() == picture[2, 10].tolist() == [44, 44, 185]
    assert picture[18, 18].tolist() == [44, 185, 44]
    assert picture[2, 30].tolist() == [100, 100, 100]
    assert picture[2, 7].tolist() == [255, 255, 255], 'two instances of one class'


def test_names_are_placed_within_their_segments():
    sem_seg = np.full((5, 12), 2)  # void
    sem_seg[:, :5], sem_seg[1, 6:11], sem_seg[3, 8] = 1, 1000, 2001
    assert place_names(sem_seg, 2) == ([(2, 2), (6, 1), (8, 3)], [1, 0, 1])


def test_grid():
    grid = grid_of([GREY, GREY + 1, GREY + 2], columns=2, gap=1)
    assert grid.shape == (13, 17, 3)
    assert (
        grid[0, 0, 0] == 100
        and grid[0, 9, 0] == 101
        and grid[7, 0, 0] == 102
        and grid[6, 0, 0] == 255 == grid[12, 16, 0]
    )

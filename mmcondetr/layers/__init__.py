"""Generic layers, independent of the paper: faster or leaner versions of PyTorch's, with the same results."""

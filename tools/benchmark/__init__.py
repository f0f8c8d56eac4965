"""Side-by-side measurement of Conditional DETR's implementations; ``tools/benchmark.py`` is its command line.

``workload`` says what is measured, ``implementations`` builds it for each contestant, ``worker`` runs one contestant in
a process of its own, ``measuring`` lets the workers take turns, ``plans`` lists the cells, ``report`` makes tables.
"""

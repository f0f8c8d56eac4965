"""Side-by-side measurement of Conditional DETR's implementations; ``tools/benchmark.py`` is its command line.

An entry is one implementation in one precision. ``workload`` defines what an entry runs, ``implementations`` builds it,
``worker`` runs it in its own process, ``measuring`` lets the workers take turns, ``plans`` lists the cells (groups of
entries that are compared), ``report`` makes the tables.
"""

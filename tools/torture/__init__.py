"""Torture: seeded attacks from outside, each in a separate process, with the results in docs/reliability.md.

attempts.py   one attempt: a forked process with limits, and its outcome
ground.py     the target: a tiny detector, its data, a checkpoint and a folder that must not be touched
attacks_*.py  the parts, each a function that yields attempts
command.py    ``python tools/torture.py``: parts, budget, seed, JSON
page.py       docs/reliability.md from the JSON
"""

"""Torture: seeded attacks from outside, each in a process of its own, and what came of them: docs/reliability.md.

attempts.py   one attempt: a forked process with limits, and the name of its outcome
ground.py     what is attacked: a tiny detector, its data, a checkpoint and the folder that must not be touched
attacks_*.py  the parts, each a function that yields attempts
command.py    ``python tools/torture.py``: parts, budget, seed, JSON
page.py       docs/reliability.md from the JSON
"""

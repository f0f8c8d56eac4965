"""The table of docs/compatibility.md, from the result files of the lanes."""

from __future__ import annotations

import json
from pathlib import Path

from mmcondetr.markdown import replace_section, table

BEGIN, END = '<!-- lanes: begin (tools/lanes.py) -->', '<!-- lanes: end -->'


def read_results(folder: Path) -> list[dict]:
    """The results under ``folder``, oldest Python first."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob('*.json'))]
    return sorted(results, key=lambda result: tuple(map(int, result['python'].split('.'))))


def results_table(results: list[dict]) -> str:
    """Markdown: a row per lane with its versions and result; then failures, skipped tests and commits."""
    heading = ('lane', 'Python', 'torch', 'mmdet', 'mmengine', 'mmcv', 'numpy', 'passed', 'failed', 'skipped')
    notes = [note for result in results for note in _notes(result)]
    return '\n'.join([table(heading, map(_cells, results)), '', *notes])


def _cells(result: dict) -> list[str]:
    versions = result.get('versions', {})

    def first(*names: str) -> str:
        found = [name for name in names if name in versions]
        return f'{found[0]} {versions[found[0]]}' if found and found[0] != names[0] else versions.get(names[0], '')

    cells = [
        f'`{result["lane"]}`: {result["what"]}',
        result['python'],
        first('torch'),
        first('mmdet', 'onedl-mmdetection'),
    ]
    cells += [first('mmengine', 'onedl-mmengine'), first('mmcv', 'mmcv-lite', 'onedl-mmcv'), first('numpy')]
    if result.get('passed') is None:
        return [*cells, result['outcome'], '', '']
    return [*cells, *(str(result[name]) for name in ('passed', 'failed', 'skipped'))]


def _notes(result: dict) -> list[str]:
    about = f'- `{result["lane"]}`: {result["outcome"]}, {result["date"]}, commit {result["commit"][:10]}'
    about += f', {result["machine"]}'
    if 'transformers' in result.get('versions', {}):
        about += f', transformers {result["versions"]["transformers"]}'
    if 'test_seconds' in result:
        about += f'; installed in {result["install_seconds"]} s, tested in {result["test_seconds"]} s beside other work'
    if result['outcome'] == 'not installed':
        about += f' (`pip install {result["step"]}`)'
    about += '.'
    return [
        about,
        *(f'  - failed: `{failure["test"]}`: {_line(failure["message"])}' for failure in result.get('failures', ())),
    ]


def _line(text: str) -> str:
    return ' '.join(text.split())[:160].replace('|', '\\|').replace('<', '&lt;')


def updated(page: str, results: list[dict]) -> str:
    """``page`` with the table between its markers."""
    return replace_section(page, BEGIN, END, results_table(results), 'docs/compatibility.md')

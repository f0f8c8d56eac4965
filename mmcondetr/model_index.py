"""Tables of models for README files, written from the metafiles that model-index.yml imports.

A README holds a generated table between two markers; everything else in it is left as it is.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import yaml

BEGIN, END = '<!-- models: begin (tools/make_tables.py) -->', '<!-- models: end -->'
PAPER_METRICS = ('AP', 'AP50', 'AP75', 'APS', 'APM', 'APL')
HEADER = ('config', 'epochs', 'params (M)', 'GFLOPs', *PAPER_METRICS, 'released weights')
NOTE = (
    'params, GFLOPs (multiply-adds) and AP to APL: Table 1 of the paper, its authors\' runs on COCO 2017 val; in '
    'parentheses what this project counts. Released weights: who published them and the AP that they report for them. '
    'None of these is a result of this project.')


@dataclass(frozen=True)
class Entry:
    """One model of a metafile.

    Attributes:
        name: what ``mim download --config`` takes.
        config: path from the project's root.
        metadata: its Metadata field.
        metrics: its only result's Metrics field.
        weights: URL, None where nobody has published any.
    """

    name: str
    config: str
    metadata: dict
    metrics: dict
    weights: Optional[str]


def read_index(root: Path) -> list[Entry]:
    """Read every model of the metafiles that ``root / model-index.yml`` imports.

    Raises:
        ValueError: if a model lacks a field that the tables need; names the file, the model and the field.
    """
    entries = []
    for metafile in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((root / metafile).read_text())['Models']:
            missing = [field for field in ('Name', 'Config', 'Metadata', 'Results') if not model.get(field)]
            if missing:
                raise ValueError(f'{metafile}: model {model.get("Name")!r} lacks {", ".join(missing)}')
            entries.append(Entry(name=model['Name'], config=model['Config'], metadata=model['Metadata'],
                                 metrics=model['Results'][0]['Metrics'], weights=model.get('Weights')))
    return entries


def render_table(entries: list[Entry], start: Path) -> str:
    """Write entries as a Markdown table, one row a config, with links relative to ``start`` (from the root)."""
    by_config: dict[str, list[Entry]] = {}
    for entry in entries:
        by_config.setdefault(entry.config, []).append(entry)
    rows = [HEADER, ['---'] * len(HEADER)]
    for config, models in by_config.items():
        first = models[0]
        link = os.path.relpath(config, start).replace(os.sep, '/')
        rows.append([
            f'[{Path(config).stem}]({link})',
            first.metadata['Epochs'],
            f"{first.metadata['Parameters'] / 1e6:.0f} ({first.metadata['Counted Parameters (M)']})",
            f"{first.metadata['FLOPs'] / 1e9:.0f} ({first.metadata['Counted GFLOPs']})",
            *(first.metrics[f'box {metric} (paper)'] for metric in PAPER_METRICS),
            '; '.join(_weights(model) for model in models if model.weights),
        ])
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in row) + ' |' for row in rows) + f'\n\n{NOTE}'


def _weights(entry: Entry) -> str:
    publisher = "authors'" if 'DeppMeng' in entry.weights else "mmdet's"
    return f"[{publisher}]({entry.weights}): AP {entry.metrics['box AP']}"


def replace_table(text: str, table: str, source: Path) -> str:
    """Put the table between the markers of a README's text.

    Raises:
        ValueError: if ``source``, the README, does not hold both markers once and in order.
    """
    pattern = re.compile(re.escape(BEGIN) + '.*?' + re.escape(END), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f'{source}: needs the line "{BEGIN}" and after it "{END}", each once')
    return pattern.sub(lambda match: f'{BEGIN}\n{table}\n{END}', text)


def updated_readmes(root: Path) -> dict[Path, str]:
    """Return the text that each README with a table should have: the root's and the metafiles' folders'."""
    entries = read_index(root)
    folders = sorted({Path(entry.config).parent for entry in entries})
    texts = {}
    for folder in folders:
        own = [entry for entry in entries if Path(entry.config).parent == folder]
        readme = root / folder / 'README.md'
        texts[readme] = replace_table(readme.read_text(), render_table(own, folder), readme)
    readme = root / 'README.md'
    if readme.exists():
        texts[readme] = replace_table(readme.read_text(), render_table(entries, Path('.')), readme)
    return texts

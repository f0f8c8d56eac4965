"""Tables of models for README files, written from the metafiles that model-index.yml imports.

A README has a generated table between two markers; everything else in it is unchanged.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from mmcondetr import markdown
from tools.convergence.report import recipes_table, trials_table
from tools.convergence.report import table as convergence_table

BEGIN, END = '<!-- {}: begin (tools/make_tables.py) -->', '<!-- {}: end -->'
PAPER_METRICS = ('AP', 'AP50', 'AP75', 'APS', 'APM', 'APL')
HEADER = ('config', 'epochs', 'params (M)', 'GFLOPs', *PAPER_METRICS, 'released weights')
NOTE = (
    "params, GFLOPs (multiply-adds) and AP to APL: Table 1 of the paper, its authors' runs on COCO 2017 val; in "
    'parentheses what this project counts. Released weights: who published them and the AP that they report for them. '
    'None of these is a result of this project.'
)
SYSTEM_HEADER = (
    'system',
    'place in the paper',
    'epochs',
    'params (M)',
    'GFLOPs',
    'paper AP',
    'shapes: AP',
    'shapes: epochs to AP',
)
SYSTEM_NOTE = (
    "paper AP, and params and GFLOPs (multiply-adds) before the parentheses: the paper's runs on COCO 2017 val; in "
    "parentheses what this project counts. shapes: this project's small-scale result, the same system at the size of "
    'the small model on the generated shapes: AP at the end of a budget, mean and standard deviation over seeds, and '
    'the mean number of epochs to the AP before the colon (docs/convergence/README.md); compare rows of one budget '
    'only. "-": not in the paper, or not run.'
)
TRAINING_HEADER = ('config', 'place in the paper', 'epochs', 'paper AP', 'plain config', "plain's paper AP", 'gain')
TRAINING_NOTE = (
    'paper AP and plain\'s: the paper\'s runs on COCO 2017 val, not results of this project; "-": not in the paper. '
    'Inference costs what the plain config costs.'
)
REPORTS = Path('docs/convergence')  # one folder per comparison, with its convergence.json
TRIALS = REPORTS / 'trials.json'  # single runs of settings that are in no comparison
RECIPES = REPORTS / 'recipes.json'  # configs trained as they are, on blood cells
RECIPES_PAGE = Path('configs/bccd/README.md')
SHOWN_TARGETS = ('0.1', '0.2')
ABLATIONS = 'ablations'  # the comparison, and the folder of configs, with their own budget
BY_HAND = ('masks',)  # folders of configs with figures of three tasks, whose README has its own table
OWN_TABLE = 'configs/conditional_detr'  # the folder whose models have Table 1's columns; also shown in the root README


@dataclass(frozen=True)
class Entry:
    """One model of a metafile.

    Attributes:
        name: what ``mim download --config`` takes.
        config: path relative to the project's root.
        metadata: its Metadata field.
        metrics: its only result's Metrics field.
        weights: URL; None if none are published.
    """

    name: str
    config: str
    metadata: dict
    metrics: dict
    weights: str | None


def read_index(root: Path) -> list[Entry]:
    """Read every model of the metafiles that ``root / model-index.yml`` imports.

    Raises:
        ValueError: a model lacks a field that the tables need; names the file, the model and the field.
    """
    entries = []
    for metafile in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for model in yaml.safe_load((root / metafile).read_text())['Models']:
            missing = [field for field in ('Name', 'Config', 'Metadata', 'Results') if not model.get(field)]
            if missing:
                raise ValueError(f'{metafile}: model {model.get("Name")!r} lacks {", ".join(missing)}')
            entries.append(
                Entry(
                    name=model['Name'],
                    config=model['Config'],
                    metadata=model['Metadata'],
                    metrics=model['Results'][0]['Metrics'],
                    weights=model.get('Weights'),
                )
            )
    return entries


def render_table(entries: list[Entry], start: Path) -> str:
    """Write entries as a Markdown table, one row per config, with links relative to ``start`` (from the root)."""
    by_config: dict[str, list[Entry]] = {}
    for entry in entries:
        by_config.setdefault(entry.config, []).append(entry)
    rows = []
    for config, models in by_config.items():
        first = models[0]
        rows.append(
            [
                _link(config, start),
                first.metadata['Epochs'],
                f'{first.metadata["Parameters"] / 1e6:.0f} ({first.metadata["Counted Parameters (M)"]})',
                f'{first.metadata["FLOPs"] / 1e9:.0f} ({first.metadata["Counted GFLOPs"]})',
                *(first.metrics[f'box {metric} (paper)'] for metric in PAPER_METRICS),
                '; '.join(_weights(model) for model in models if model.weights),
            ]
        )
    return f'{markdown.table(HEADER, rows)}\n\n{NOTE}'


def render_systems(entries: list[Entry], start: Path, results: dict) -> str:
    """Write entries of any paper as a Markdown table, with links relative to ``start`` (from the root).

    Args:
        results: this project's small-scale results (:func:`read_results`).
    """
    rows = []
    for entry in {entry.config: entry for entry in reversed(entries)}.values():
        data, comparison = entry.metadata, ABLATIONS if Path(entry.config).parent.name == ABLATIONS else 'shapes'
        shapes = results.get(comparison, {}).get(data.get('Shapes System'))
        params, gflops = data.get('Parameters'), data.get('FLOPs')
        rows.append(
            [
                _link(entry.config, start),
                data.get('Place', 'Table 1'),
                data['Epochs'],
                f'{f"{params / 1e6:.0f}" if params else "-"} ({data["Counted Parameters (M)"]})',
                f'{f"{gflops / 1e9:.4g}" if gflops else "-"} ({data["Counted GFLOPs"]})',
                entry.metrics.get('box AP (paper)', '-'),
                _final_ap(shapes) if shapes else '-',
                _epochs(shapes) if shapes else '-',
            ]
        )
    return f'{markdown.table(SYSTEM_HEADER, reversed(rows))}\n\n{SYSTEM_NOTE}'


def render_training(entries: list[Entry], start: Path) -> str:
    """Write entries that change only training as a Markdown table, each with its plain config's AP."""
    rows = []
    for entry in entries:
        data, ap = entry.metadata, entry.metrics.get('box AP (paper)')
        plain_ap = data.get('Plain box AP (paper)')
        rows.append(
            [
                _link(entry.config, start, entry.name),
                data['Place'],
                data['Epochs'],
                ap or '-',
                data.get('Plain', '-'),
                plain_ap or '-',
                f'{ap - plain_ap:+.1f}' if ap and plain_ap else '-',
            ]
        )
    return f'{markdown.table(TRAINING_HEADER, rows)}\n\n{TRAINING_NOTE}'


def _link(config: str, start: Path, name: str | None = None) -> str:
    """A link from a page in ``start`` to a config, both relative to the root; named after the config by default."""
    return f'[{name or Path(config).stem}]({os.path.relpath(config, start).replace(os.sep, "/")})'


def _final_ap(shapes: dict) -> str:
    ap, seeds = shapes['final_ap'], len(shapes['seeds'])
    spread = f' ± {ap["std"]:.3f}' if seeds > 1 else ''
    return f'{ap["mean"]:.3f}{spread} ({shapes["epochs"]} epochs, {seeds} seed{"s" if seeds > 1 else ""})'


def _epochs(shapes: dict) -> str:
    return '; '.join(
        f'{target}: ' + (f'{reached["mean"]:.1f}' if reached else 'not reached')
        for target, reached in shapes['epochs_to_targets'].items()
        if target in SHOWN_TARGETS
    )


def read_results(root: Path) -> dict[str, dict]:
    """The small-scale results of every comparison in REPORTS, by comparison and system."""
    return {
        path.parent.name: json.loads(path.read_text())['systems']
        for path in (root / REPORTS).glob('*/convergence.json')
    }


def _weights(entry: Entry) -> str:
    publisher = "authors'" if 'DeppMeng' in entry.weights else "mmdet's"
    return f'[{publisher}]({entry.weights}): AP {entry.metrics["box AP"]}'


def updated_readmes(root: Path) -> dict[Path, str]:
    """The expected text of each page with a table: the READMEs of the root, configs/, the metafiles' folders and
    REPORTS, and docs/training-faster.md."""
    entries = [entry for entry in read_index(root) if entry.config.split('/')[1] not in BY_HAND]
    results = read_results(root)
    folders = {
        folder: [entry for entry in entries if Path(entry.config).parent == folder]
        for folder in sorted({Path(entry.config).parent for entry in entries})
    }
    table1 = folders.get(Path(OWN_TABLE), entries)
    tables = {Path('configs'): render_systems(entries, Path('configs'), results)}
    if (root / 'README.md').exists():
        tables[Path('.')] = render_table(table1, Path('.'))
    for folder, own in folders.items():
        if own is table1:
            tables[folder] = render_table(own, folder)
        elif any('Plain' in entry.metadata for entry in own):
            tables[folder] = render_training(own, folder)
        else:
            tables[folder] = render_systems(own, folder, results)
    texts = {}
    for folder, table in tables.items():
        readme = root / folder / 'README.md'
        texts[readme] = _replace_table(readme.read_text(), table, readme)
    readme = root / REPORTS / 'README.md'
    for report in sorted((root / REPORTS).glob('*/convergence.json')):
        text, table = texts.get(readme) or readme.read_text(), convergence_table(json.loads(report.read_text()))
        texts[readme] = _replace_table(text, table, readme, report.parent.name)
    if (root / TRIALS).exists():
        page = root / 'docs/training-faster.md'
        text = _replace_table(
            page.read_text(), trials_table(json.loads((root / TRIALS).read_text())['runs']), page, 'trials'
        )
        report = json.loads((root / REPORTS / 'small-batches/convergence.json').read_text())
        texts[page] = _replace_table(text, convergence_table(report), page, 'small-batches')
    if (root / RECIPES).exists():
        page = root / RECIPES_PAGE
        table = recipes_table(json.loads((root / RECIPES).read_text())['runs'], _recipe)
        texts[page] = _replace_table(page.read_text(), table, page, 'recipes')
    return texts


def _recipe(name: str) -> str:
    """A config's link on the page of recipes, or the command that writes one."""
    return _link(name, start=RECIPES_PAGE.parent) if name.endswith('.py') else f'`{name}`'


def _replace_table(text: str, table: str, readme: Path, name: str = 'models') -> str:
    return markdown.replace_section(text, BEGIN.format(name), END.format(name), table, readme)

"""metafile.yml and model-index.yml: one entry per config, the paper's figures, and matching tables in READMEs."""

import json
from pathlib import Path

import pytest
import yaml

from tools.model_zoo import model_index

PAPER = json.loads((Path(__file__).parents[1] / 'data/conditional_detr_table1.json').read_text())
RELEASES = 'https://github.com/DeppMeng/ConditionalDETR/releases/download/v1.0'
AUTHORS_WEIGHTS = {  # published AP: the authors' README
    'conditional-detr_r50_8xb2-50e_coco': (f'{RELEASES}/ConditionalDETR_r50_epoch50.pth', 41.0),
    'conditional-detr_r50-dc5_8xb1-50e_coco': (f'{RELEASES}/ConditionalDETR_r50dc5_epoch50.pth', 43.7),
    'conditional-detr_r101_8xb2-50e_coco': (f'{RELEASES}/ConditionalDETR_r101_epoch50.pth', 42.8),
    'conditional-detr_r101-dc5_8xb1-50e_coco': (f'{RELEASES}/ConditionalDETR_r101dc5_epoch50.pth', 45.0),
}
MMDET_ENTRY = 'conditional-detr_r50_8xb2-50e_coco_mmdet-weights'


@pytest.fixture(scope='module')
def entries(root):
    return {entry.name: entry for entry in model_index.read_index(root)}


def own(entries):
    """The entries of Table 1's twelve that have their own config."""
    return [
        entry
        for name, entry in entries.items()
        if entry.config.startswith('configs/conditional_detr/') and name != MMDET_ENTRY
    ]


def test_one_entry_a_config_named_as_its_file(entries, root):
    configs = {path.relative_to(root).as_posix() for path in (root / 'configs/conditional_detr').glob('*.py')}
    assert {entry.config for entry in own(entries)} == configs and len(own(entries)) == len(configs)
    assert all(Path(entry.config).stem == entry.name for entry in own(entries))


def test_names_are_distinct_and_collections_exist(root):
    metafile = yaml.safe_load((root / 'configs/conditional_detr/metafile.yml').read_text())
    names = [model['Name'] for model in metafile['Models']]
    assert len(set(names)) == len(names) == 13
    assert {model['In Collection'] for model in metafile['Models']} == {
        collection['Name'] for collection in metafile['Collections']
    }
    assert all((root / collection['README']).is_file() for collection in metafile['Collections'])


def test_figures_are_table_1(entries):
    for entry in own(entries):
        row = PAPER['rows'][entry.name]
        assert entry.metadata['Epochs'] == row['epochs']
        assert entry.metadata['FLOPs'] == row['GFLOPs'] * 10**9
        assert entry.metadata['Parameters'] == row['params (M)'] * 10**6
        assert {metric: entry.metrics[f'box {metric} (paper)'] for metric in model_index.PAPER_METRICS} == {
            metric: row[metric] for metric in model_index.PAPER_METRICS
        }


def test_metadata_agrees_with_the_config(entries, root, load_config):
    for entry in entries.values():
        config = load_config(root / entry.config)
        assert entry.metadata['Epochs'] == config.train_cfg.max_epochs
        assert entry.metadata['Batch Size'] == config.auto_scale_lr.base_batch_size


def test_ap_without_a_source_stands_only_beside_weights(entries):
    found = {entry.name: (entry.weights, entry.metrics.get('box AP')) for entry in own(entries) if entry.weights}
    assert found == AUTHORS_WEIGHTS
    assert all('box AP' not in entry.metrics for entry in own(entries) if not entry.weights)


def test_mmdets_weights_have_an_entry_of_their_own(entries):
    entry = entries[MMDET_ENTRY]
    assert entry.config == entries['conditional-detr_r50_8xb2-50e_coco'].config
    assert entry.weights.endswith('conditional-detr_r50_8xb2-50e_coco_20221121_180202-c83a1dc0.pth')
    assert entry.metrics == {'box AP': 40.9}


def test_readme_tables_are_up_to_date(root):
    texts = model_index.updated_readmes(root)
    assert root / 'configs/conditional_detr/README.md' in texts
    for path, text in texts.items():
        assert path.read_text() == text, f'{path} is out of date: run tools/make_tables.py'


def test_table_has_a_row_a_config_with_links_that_exist(entries, root):
    folder = Path('configs/conditional_detr')
    table = model_index.render_table([*own(entries), entries[MMDET_ENTRY]], folder)
    for name, entry in ((entry.name, entry) for entry in own(entries)):
        row = next(line for line in table.splitlines() if line.startswith(f'| [{name}]'))
        link = row.split('](')[1].split(')')[0]
        assert (root / folder / link).is_file()
        assert f'| {entry.metrics["box AP (paper)"]} |' in row
    assert len(table.splitlines()) == 2 + 12 + 2


def test_entry_without_a_field_is_named(tmp_path):
    (tmp_path / 'model-index.yml').write_text('Import: [meta.yml]')
    (tmp_path / 'meta.yml').write_text('Models: [{Name: some-model, Config: a.py, Metadata: {Epochs: 1}}]')
    with pytest.raises(ValueError, match="meta.yml: model 'some-model' lacks Results"):
        model_index.read_index(tmp_path)


def test_mims_own_reader_accepts_the_index(root):
    modelindex = pytest.importorskip('modelindex', reason='mim is not installed (extra "mim")')
    index = modelindex.load(str(root / 'model-index.yml'))
    assert len(index.models) == len(model_index.read_index(root)) and len(index.collections) == 8
    metrics = {model.name: model.results[0].metrics for model in index.models}['conditional-detr_r50_8xb2-50e_coco']
    assert (metrics['box AP'], metrics['box AP (paper)']) == (41.0, 40.9)

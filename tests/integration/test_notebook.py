"""demo/tutorial.ipynb runs from top to bottom, and is stored with its pictures."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip('nbformat', reason='needs nbclient and ipykernel (pip install "mmcondetr[test]")')
nbclient = pytest.importorskip('nbclient', reason='needs nbclient and ipykernel (pip install "mmcondetr[test]")')

NOTEBOOK = Path(__file__).resolve().parents[2] / 'demo' / 'tutorial.ipynb'


def pictures(notebook) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
    return sum(any(kind.startswith('image/') for kind in output.get('data', {})) for output in outputs)


def test_it_is_stored_with_its_outputs_and_without_anybodys_paths():
    notebook = nbformat.read(NOTEBOOK, 4)
    assert pictures(notebook) == 2 and NOTEBOOK.stat().st_size < 300_000
    text = NOTEBOOK.read_text()
    assert '/home/' not in text and '/tmp/' not in text and '/work/' not in text


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONWARNINGS', 'ignore')
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            cell.outputs = []
    client = nbclient.NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(tmp_path))))
    client.execute()  # CellExecutionError where a cell fails
    assert pictures(notebook) == 2
    codes = [
        output.data['text/plain']
        for cell in notebook.cells
        for output in cell.get('outputs', [])
        if output.output_type == 'execute_result' and 'main(' in cell.source and 'Image' not in cell.source
    ]
    assert len(codes) == 5 and set(codes) == {'0'}

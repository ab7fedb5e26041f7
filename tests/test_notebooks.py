"""The notebooks of the site run, and have learned what they say; `python -m tests.test_notebooks` stores what they print."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def execute(path):
    """The notebook after it has run from top to bottom; an error in a cell is one here."""
    nbformat = pytest.importorskip("nbformat", reason="needs pip install 'fw-rl[dev]'")
    from nbclient import NotebookClient

    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ |= {"PYTHONPATH": paths, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    client = NotebookClient(nbformat.read(path, as_version=4), timeout=600, record_timing=False)
    return client.execute()


@pytest.mark.processes
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_claims_hold(path):
    """The last code of each is assertions."""
    notebook = execute(path)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert codes[-1].source.startswith("assert ")
    assert any("image/png" in output.get("data", {}) for cell in codes for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_small_with_what_it_prints(path):
    assert path.stat().st_size < 100_000
    assert '"image/png"' in path.read_text() and '"traceback"' not in path.read_text()


if __name__ == "__main__":
    for path in NOTEBOOKS:
        import nbformat

        nbformat.write(execute(path), path)

"""Write the tables of models in the README files from the metafiles; with --check only list those out of date.

python tools/make_tables.py
"""

import argparse
from pathlib import Path

from mmcondetr.cli.common import run_guarded
from tools.model_zoo.model_index import updated_readmes


def main() -> int:
    parser = argparse.ArgumentParser(description='Write the tables of models in the README files.')
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if a table is out of date')
    args = parser.parse_args()
    stale: list[Path] = []

    def update() -> None:
        for path, text in updated_readmes(Path(__file__).resolve().parents[2]).items():
            if path.read_text() != text:
                stale.append(path)
                print(f'{path}: {"out of date" if args.check else "written"}')
                if not args.check:
                    path.write_text(text)

    return run_guarded(update) or int(args.check and bool(stale))

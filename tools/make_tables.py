"""Write the generated tables of the README files: ``python tools/make_tables.py [--check]``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.model_zoo.tables_command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

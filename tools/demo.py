"""Run the demo: ``python tools/demo.py --work-dir work_dirs/demo`` (what ``make demo`` does)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.demo.command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

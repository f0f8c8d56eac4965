"""Run the quick tests with each supported set of packages: ``python tools/lanes.py``; see docs/compatibility.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.lanes.command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

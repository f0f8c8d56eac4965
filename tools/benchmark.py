"""Measure speed and memory against other implementations: ``python tools/benchmark.py``; see docs/performance.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.benchmark.command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

"""Compare how quickly systems learn, at small scale: ``python tools/convergence.py``; see docs/convergence."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.convergence.command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

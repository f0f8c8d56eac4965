"""Attack the package from outside and count what breaks: ``make torture``; see docs/reliability.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.torture.command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

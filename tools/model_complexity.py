"""Print the parameters and GFLOPs of configs: ``python tools/model_complexity.py CONFIG...``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.model_zoo.complexity_command import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())

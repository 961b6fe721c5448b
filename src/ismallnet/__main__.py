"""``python -m ismallnet`` is the command ``ismallnet``."""

import sys

from ismallnet.cli import main

sys.exit(main())

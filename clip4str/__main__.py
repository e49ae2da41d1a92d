"""python -m clip4str: the command, where its folder is not on PATH."""

import sys

from clip4str.core.cli import main

sys.exit(main())

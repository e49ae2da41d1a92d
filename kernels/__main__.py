"""`python -m clip4str.kernels` builds the kernels' library."""

import sys

from clip4str.core.console import run_script
from clip4str.kernels.build import PROGRAM, main

sys.exit(run_script(PROGRAM, main))

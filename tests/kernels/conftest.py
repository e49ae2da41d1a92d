"""Triton kernels run here through its interpreter: no GPU needed. It must be on before the first kernel is imported."""

import os

os.environ["TRITON_INTERPRET"] = "1"

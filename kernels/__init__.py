"""GPU operators, each in a folder of its own: api (validation), reference (plain torch: the specification), kernel
(Triton), bench. They import shared/, their own files, and the operators that they are built from. NOTES.md holds what
was predicted and what was measured.

Operators run their reference on CPU tensors and their kernel on CUDA tensors; both take the same arguments.
"""

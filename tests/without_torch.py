"""What there is where only the runtime's dependencies are installed: `python -c PROGRAM read crop.jpg` is the command,
`python -c SCRIPT benchmarks/roofline.py --devices l4` a script."""

_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "safetensors", "lightning", "matplotlib", "lmdb", "triton"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""

PROGRAM = f"""{_BLOCK}
from clip4str.core.cli import main
sys.exit(main(sys.argv[1:]))
"""

SCRIPT = f"""{_BLOCK}
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

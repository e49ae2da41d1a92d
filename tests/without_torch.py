"""The command as it is where only the runtime's dependencies are installed: `python -c PROGRAM read crop.jpg`."""

PROGRAM = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "safetensors", "lightning", "matplotlib", "lmdb", "triton"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from clip4str.core.cli import main
sys.exit(main(sys.argv[1:]))
"""

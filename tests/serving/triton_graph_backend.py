"""In the place of Triton's ONNX Runtime and TensorRT backends, which the wheel does not have: a "Python-based backend",
that is model.py in a backend's folder. The server reads config.pbtxt, batches, reshapes and runs ensembles as always;
this runs the graph: what is called model.plan is an ONNX file, too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as server


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        (path,) = folder.iterdir()
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.inputs = [one["name"] for one in config["input"]]
        self.outputs = [one["name"] for one in config["output"]]
        found = [one.name for one in self.session.get_inputs()], [one.name for one in self.session.get_outputs()]
        if set(found[0]) != set(self.inputs) or not set(self.outputs) <= set(found[1]):
            raise server.TritonModelException(f"the graph has {found}, config.pbtxt {self.inputs} and {self.outputs}")

    def execute(self, requests):
        """All requests in one run, as those backends do."""
        taken = [[server.get_input_tensor_by_name(one, name).as_numpy() for name in self.inputs] for one in requests]
        sizes = [len(arrays[0]) for arrays in taken]
        feed = {name: np.concatenate(arrays) for name, arrays in zip(self.inputs, zip(*taken))}
        found, responses, first = self.session.run(self.outputs, feed), [], 0
        for size in sizes:
            rows = [array[first : first + size] for array in found]
            rows = [np.array([t.encode() for t in array], object) if array.dtype == object else array for array in rows]
            responses.append(server.InferenceResponse([server.Tensor(n, a) for n, a in zip(self.outputs, rows)]))
            first += size
        return responses

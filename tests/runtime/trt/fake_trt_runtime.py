"""A `tensorrt` (runtime only) on a FakeGpu: an engine file names an ONNX file, which ONNX Runtime runs over the memory
at the addresses that the context was given, when the stream gets there.

It refuses what TensorRT refuses: addresses that are not aligned, shapes outside the profile, too little scratch memory,
a capture of a context that never ran with these shapes. Scratch memory is scribbled over, as real engines do.
"""

from __future__ import annotations

import enum
import json
import types
import weakref
from functools import cache

import numpy as np
import onnxruntime
from answers import answered

MAGIC = b"fake plan "
DataType = enum.Enum("DataType", "FLOAT HALF INT32 BOOL INT8")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
TensorFormat = enum.Enum("TensorFormat", "LINEAR CHW4")
Strategy = enum.Enum("ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
Specialization = enum.Enum("DynamicShapesKernelSpecializationStrategy", "LAZY EAGER NONE")
CudaGraphStrategy = enum.Enum("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE")
TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int32)": "INT32", "tensor(bool)": "BOOL"}
NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32, "BOOL": np.bool_}


def write_plan(path, onnx_file, profile, steps=26, **changes):
    """changes: of the tensors, {name: {"shape", "dtype", "format", "location", "mode"}}"""
    plan = {"onnx": str(onnx_file), "profile": profile, "steps": steps, "changes": changes}
    text = json.dumps(plan)
    path.write_bytes(MAGIC + f"{len(text):08d}".encode() + text.encode())


@cache
def session_of(onnx_file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_file, options)


def make_tensorrt(gpu, version="10.3.0", rtx=False):
    """The module. Its `alive` are the engines and contexts that nobody has dropped."""
    trt = types.ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    trt.alive = weakref.WeakSet()
    trt.enqueued = []  # (stage file, rows) of every enqueue

    class ILogger:
        Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

        def __init__(self):
            self.made = True

    class Runtime:
        def __init__(self, logger):
            assert logger.made, "ILogger.__init__ was not called"
            self.logger, self.engine_host_code_allowed = logger, False
            trt.runtime = weakref.proxy(self)

        def deserialize_cuda_engine(self, data):
            assert gpu.is_current()
            gpu.called("deserialize")
            size = data[len(MAGIC) : len(MAGIC) + 8]
            if not data.startswith(MAGIC) or int(size) != len(data) - len(MAGIC) - 8:
                self.logger.log(ILogger.Severity.ERROR, "IRuntime::deserializeCudaEngine: magic tag\ndoes not match")
                return None
            return Engine(self, json.loads(data[len(MAGIC) + 8 :]))

    class RuntimeConfig:
        strategy = None

        def set_execution_context_allocation_strategy(self, strategy):
            self.strategy = strategy

    class Engine:
        num_optimization_profiles = 1

        def __init__(self, runtime, plan):
            self.runtime, self.plan = runtime, plan
            self.session = session_of(plan["onnx"])
            self.tensors = {}
            for mode, values in (("INPUT", self.session.get_inputs()), ("OUTPUT", self.session.get_outputs())):
                for value in values:
                    whole = {"N": -1, "T": plan["steps"], "S": plan["steps"]}
                    shape = tuple(whole.get(size, size) for size in value.shape)
                    tensor = {"mode": mode, "shape": shape, "dtype": TYPES[value.type], "format": "LINEAR"}
                    self.tensors[value.name] = {**tensor, "location": "DEVICE"}
            for name, change in plan["changes"].items():
                self.tensors.setdefault(name, {}).update(change)
            trt.alive.add(self)

        @property
        def num_io_tensors(self):
            return len(self.tensors)

        def get_tensor_name(self, index):
            return list(self.tensors)[index]

        def get_tensor_mode(self, name):
            return TensorIOMode[self.tensors[name]["mode"]]

        def get_tensor_shape(self, name):
            return tuple(self.tensors[name]["shape"])

        def get_tensor_dtype(self, name):
            return DataType[self.tensors[name]["dtype"]]

        def get_tensor_format(self, name):
            return TensorFormat[self.tensors[name]["format"]]

        def get_tensor_location(self, name):
            return TensorLocation[self.tensors[name]["location"]]

        def get_tensor_profile_shape(self, name, profile):
            assert profile == 0 and self.tensors[name]["mode"] == "INPUT"
            row = self.tensors[name]["shape"][1:]
            return [(self.plan["profile"][k], *row) for k in ("min", "opt", "max")]

        def create_execution_context(self, how):
            assert gpu.is_current()
            if rtx:
                assert how.cuda_graph_strategy is CudaGraphStrategy.DISABLED
                eager = how.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
                how = how.strategy
            else:
                eager = True
            assert how is Strategy.USER_MANAGED
            gpu.called("context")
            return Context(self, eager)

    class Context:
        def __init__(self, engine, eager):
            self.engine, self.eager, self.shapes, self.addresses = engine, eager, {}, {}
            self.scratch, self.ready = (0, 0), None
            trt.alive.add(self)

        def _complain(self, text):
            self.engine.runtime.logger.log(ILogger.Severity.ERROR, text)
            return False

        def set_input_shape(self, name, shape):
            tensor, profile = self.engine.tensors[name], self.engine.plan["profile"]
            if tuple(shape[1:]) != tensor["shape"][1:] or not profile["min"] <= shape[0] <= profile["max"]:
                return self._complain(f"{name}: {shape} is outside the profile")
            self.shapes[name] = tuple(shape)
            return True

        def update_device_memory_size_for_shapes(self):
            assert len(self.shapes) == sum(t["mode"] == "INPUT" for t in self.engine.tensors.values())
            return 512 * self.rows + 100

        @property
        def rows(self):
            (rows,) = {shape[0] for shape in self.shapes.values()}
            return rows

        def set_device_memory(self, address, size):
            assert size >= self.update_device_memory_size_for_shapes() and address % 256 == 0
            self.scratch = (address, size)

        def set_tensor_address(self, name, address):
            if name not in self.engine.tensors or address % 256:
                return self._complain(f"{name}: address {address} is not aligned")
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            assert stream != 0 and gpu.is_current()
            trt.enqueued.append((self.engine.plan["onnx"].rpartition("/")[2].removesuffix(".onnx"), self.rows))
            try:
                gpu.called("enqueue")
            except Exception as error:
                return self._complain(f"IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime ({error})")
            state = (self.rows, tuple(self.addresses.items()), self.scratch)
            if self.addresses.keys() != self.engine.tensors.keys() or not self.scratch[0]:
                return self._complain("IExecutionContext::enqueueV3: an address is missing")
            if gpu.in_capture() and (self.ready != state or not self.eager):
                return self._complain("operation not permitted when stream is capturing")
            self.ready = state
            gpu.send(stream, lambda: run(self.engine, *state), "engine")
            return True

    def run(engine, rows, addresses, scratch):
        gpu.view(*scratch)[:] = 0xEE
        addresses, feed, outputs = dict(addresses), {}, []

        def area(name):
            tensor = engine.tensors[name]
            dtype = np.dtype(NUMPY[tensor["dtype"]])
            shape = (rows, *tensor["shape"][1:])
            return gpu.view(addresses[name], int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)

        for name, tensor in engine.tensors.items():
            if tensor["mode"] == "INPUT":
                feed[name] = area(name)
            else:
                outputs.append(name)

        def compute():
            return engine.session.run(outputs, {name: array.copy() for name, array in feed.items()})

        for name, values in zip(outputs, answered((engine.plan["onnx"], *outputs), feed, compute)):
            area(name)[:] = values

    trt.__version__ = version
    trt.ILogger, trt.Runtime, trt.DataType, trt.TensorIOMode = ILogger, Runtime, DataType, TensorIOMode
    trt.TensorLocation, trt.TensorFormat = TensorLocation, TensorFormat
    trt.ExecutionContextAllocationStrategy = Strategy
    if rtx:
        trt.DynamicShapesKernelSpecializationStrategy, trt.CudaGraphStrategy = Specialization, CudaGraphStrategy
        Engine.create_runtime_config = lambda self: RuntimeConfig()
    return trt

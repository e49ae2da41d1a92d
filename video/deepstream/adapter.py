"""DeepStream's Python bindings, pyds, as far as they are needed: all calls of them are here.

What they give lies in the memory of a buffer, and is gone with it: nothing of a Batch may be kept after its probe has
returned.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError, ImageError

LABEL = 128  # bytes of a label with its closing zero: MAX_LABEL_SIZE of nvdsmeta.h
UNTRACKED = 2**64 - 1  # the number of objects that have none
NO_TIME = 2**64 - 1  # GST_CLOCK_TIME_NONE
Box = tuple[float, float, float, float]  # left, top, width, height in pixels of the batch's surfaces


@dataclass(frozen=True)
class Object:
    """number: the tracker's, None where there is none. label: of its class, as the detector has it."""

    number: int | None
    class_id: int
    label: str
    box: Box
    meta: Any


@dataclass(frozen=True)
class FrameInBatch:
    """One source's frame. time: its time stamp in seconds, None where it has none."""

    source: int
    number: int
    time: float | None
    place: int
    meta: Any


class Batch:
    """The metadata of a buffer."""

    def __init__(self, pyds: Any, address: int, meta: Any) -> None:
        self._pyds, self._address, self._meta = pyds, address, meta

    def frames(self) -> Iterator[FrameInBatch]:
        for data in _items(self._meta.frame_meta_list):
            meta = self._pyds.NvDsFrameMeta.cast(data)
            time = None if meta.buf_pts == NO_TIME else meta.buf_pts / 1e9
            yield FrameInBatch(meta.source_id, meta.frame_num, time, meta.batch_id, meta)

    def objects(self, frame: FrameInBatch) -> Iterator[Object]:
        for data in _items(frame.meta.obj_meta_list):
            meta = self._pyds.NvDsObjectMeta.cast(data)
            rectangle = meta.rect_params
            box = rectangle.left, rectangle.top, rectangle.width, rectangle.height
            number = None if meta.object_id == UNTRACKED else meta.object_id
            yield Object(number, meta.class_id, meta.obj_label, box, meta)

    @contextmanager
    def pixels(self, frame: FrameInBatch) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3) RGB, a view: of the surface's own memory, whose rows are further apart than W pixels.

        Raises ImageError where the surface is not RGBA. On a server its memory must be CUDA's unified memory
        (nvbuf-memory-type=3): the bindings do not check it, and reading other memory crashes the process.
        """
        try:
            pixels = self._pyds.get_nvds_buf_surface(self._address, frame.place)
        except RuntimeError:
            raise ImageError("surfaces are not RGBA: nvvideoconvert ! video/x-raw(memory:NVMM),format=RGBA") from None
        try:
            yield pixels[..., :3]
        finally:
            if platform.machine() == "aarch64":  # a Jetson's surfaces are mapped for this
                self._pyds.unmap_nvds_buf_surface(self._address, frame.place)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While metadata is written."""
        self._pyds.nvds_acquire_meta_lock(self._meta)
        try:
            yield
        finally:
            self._pyds.nvds_release_meta_lock(self._meta)

    def classify(self, target: Object, text: str, confidence: float, component: int) -> None:
        """An object's word: what nvdsosd draws, and a classifier's label. Under `locked`."""
        target.meta.text_params.display_text = text
        label = self._pyds.nvds_acquire_label_info_meta_from_pool(self._meta)
        label.num_classes, label.label_id, label.result_class_id = 1, 0, 0
        label.result_prob = float(confidence)
        label.result_label = ended(text)
        classifier = self._pyds.nvds_acquire_classifier_meta_from_pool(self._meta)
        classifier.unique_component_id = component
        self._pyds.nvds_add_label_info_meta_to_classifier(classifier, label)
        self._pyds.nvds_add_classifier_meta_to_object(target.meta, classifier)

    def add_object(self, frame: FrameInBatch, box: Box, confidence: float, label: str, component: int) -> None:
        """An object as nvinfer adds them, for a tracker to number. Under `locked`."""
        meta = self._pyds.nvds_acquire_obj_meta_from_pool(self._meta)
        meta.unique_component_id, meta.class_id, meta.object_id = component, 0, UNTRACKED
        meta.confidence, meta.obj_label = float(confidence), ended(label)
        rectangle, detected = meta.rect_params, meta.detector_bbox_info.org_bbox_coords
        for place in (rectangle, detected):  # trackers take the second
            place.left, place.top, place.width, place.height = map(float, box)
        rectangle.border_width, rectangle.has_bg_color = 2, 0
        rectangle.border_color.set(0.0, 1.0, 0.0, 1.0)
        text = meta.text_params
        text.display_text, text.set_bg_clr = label, 1
        text.x_offset, text.y_offset = max(0, int(box[0])), max(0, int(box[1]) - 20)
        text.font_params.font_name, text.font_params.font_size = "Serif", 12
        text.font_params.font_color.set(1.0, 1.0, 1.0, 1.0)
        text.text_bg_clr.set(0.0, 0.0, 0.0, 1.0)
        self._pyds.nvds_add_obj_meta_to_frame(frame.meta, meta, None)

    def searched(self, frame: FrameInBatch) -> None:
        """Trackers tell frames without objects from such that were not searched. Under `locked`."""
        frame.meta.bInferDone = 1

    def maps(self, frame: FrameInBatch, component: int) -> list[np.ndarray]:
        """float32 copies of the first output of each tensor that nvinfer `component` (gie-unique-id) left with
        output-tensor-meta=1, in its own shape. Raises ImageError for other types than float and half."""
        pyds, found = self._pyds, []
        for data in _items(frame.meta.frame_user_meta_list):
            user = pyds.NvDsUserMeta.cast(data)
            if user.base_meta.meta_type != pyds.NvDsMetaType.NVDSINFER_TENSOR_OUTPUT_META:
                continue
            tensor = pyds.NvDsInferTensorMeta.cast(user.user_meta_data)
            if tensor.unique_id == component and tensor.num_output_layers:
                found.append(_values(pyds, pyds.get_nvds_LayerInfo(tensor, 0)))
        return found


class Adapter:
    """pyds: the module, None for the installed one. Raises BackendError where there is none."""

    def __init__(self, pyds: Any = None) -> None:
        try:
            self._pyds = pyds or importlib.import_module("pyds")
        except ImportError as error:
            raise BackendError(
                f"DeepStream's Python bindings are not installed ({error}): see docs/deepstream.md"
            ) from None

    def batch(self, buffer: Any) -> Batch | None:
        """Of a Gst.Buffer that has come through nvstreammux; None for others."""
        address = hash(buffer)  # that is its address in C, which all of pyds goes by
        meta = self._pyds.gst_buffer_get_nvds_batch_meta(address)
        return None if meta is None else Batch(self._pyds, address, meta)


def ok() -> Any:
    """What a probe returns to let the buffer pass."""
    try:
        from gi.repository import Gst
    except ImportError:
        return 1
    return Gst.PadProbeReturn.OK


def ended(text: str) -> str:
    """For an array of 128 bytes: cut, and with its end, as the bindings copy what they are given and check nothing."""
    data = text.replace("\0", "").encode("utf-8", "replace")[: LABEL - 1]
    return data.decode("utf-8", "ignore") + "\0"


def _items(node: Any) -> Iterator[Any]:
    """What a GList's nodes point at."""
    while node is not None:
        yield node.data
        try:
            node = node.next
        except StopIteration:  # of older bindings
            return


def _values(pyds: Any, layer: Any) -> np.ndarray:
    kinds: dict[Any, tuple[type, Callable[[np.ndarray], np.ndarray]]] = {
        pyds.NvDsInferDataType.FLOAT: (ctypes.c_float, lambda values: values),
        pyds.NvDsInferDataType.HALF: (ctypes.c_uint16, lambda values: values.view(np.float16)),
    }
    if layer.dataType not in kinds:
        raise ImageError("the detector's output is neither float nor half: build its engine with float output")
    kind, view = kinds[layer.dataType]
    dims = layer.inferDims
    shape = tuple(int(side) for side in dims.d[: dims.numDims])
    pointer: Any = ctypes.cast(pyds.get_ptr(layer.buffer), ctypes.POINTER(kind))
    return view(np.ctypeslib.as_array(pointer, shape)).astype(np.float32)

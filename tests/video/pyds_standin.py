"""A stand-in for pyds, DeepStream's Python bindings: refuses whatever the recorded API (pyds_api.json, see
record_pyds.py) has not, and what the real one would take and crash of, or corrupt memory with."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

API = json.loads(Path(__file__).with_name("pyds_api.json").read_text(encoding="utf-8"))
LABEL = 128  # MAX_LABEL_SIZE of nvdsmeta.h
UNTRACKED = 2**64 - 1
# C types of the fields that matter, of nvdsmeta.h and nvll_osd_struct.h, which the bindings do not tell
WHOLE = {"class_id", "unique_component_id", "object_id", "x_offset", "y_offset", "font_size", "set_bg_clr",
         "has_bg_color", "border_width", "label_id", "result_class_id", "num_classes", "num_labels",
         "bInferDone"}  # fmt: skip
FLOATS = {"left", "top", "width", "height", "confidence", "tracker_confidence", "result_prob"}
PARAMETERS = {"batch_meta": "NvDsBatchMeta", "frame_meta": "NvDsFrameMeta", "obj_meta": "NvDsObjectMeta",
              "obj_parent": "NvDsObjectMeta", "classifier_meta": "NvDsClassifierMeta",
              "label_info_meta": "NvDsLabelInfo"}  # fmt: skip
PARTS = {  # what a fresh object of a class holds
    "NvDsObjectMeta": {"rect_params": "NvOSD_RectParams", "text_params": "NvOSD_TextParams",
                       "detector_bbox_info": "NvDsComp_BboxInfo", "base_meta": "NvDsBaseMeta"},
    "NvDsComp_BboxInfo": {"org_bbox_coords": "NvBbox_Coords"},
    "NvOSD_RectParams": {"border_color": "NvOSD_ColorParams", "bg_color": "NvOSD_ColorParams"},
    "NvOSD_TextParams": {"font_params": "NvOSD_FontParams", "text_bg_clr": "NvOSD_ColorParams"},
    "NvOSD_FontParams": {"font_color": "NvOSD_ColorParams"},
    "NvDsUserMeta": {"base_meta": "NvDsBaseMeta"},
}  # fmt: skip


class Refused(AssertionError):
    """The real pyds has no such thing, or would do harm."""


@dataclass
class Buffer:
    """A GstBuffer as far as pyds sees it: its surfaces and metadata. hash() is its address."""

    surfaces: list[tuple[np.ndarray, np.ndarray]]
    batch: Any = None
    alive: bool = True
    mapped: dict[int, int] = field(default_factory=dict)

    def __hash__(self) -> int:
        return id(self)


class Capsule:
    """A void pointer: nothing can be done with it but to cast it."""

    def __init__(self, target: Any) -> None:
        self._target = target


class Meta:
    """An object of a recorded class, in the memory of a batch. Fields start with what was there before."""

    def __init__(self, pyds: Pyds, kind: str, owner: Buffer | None) -> None:
        fields = API["classes"][kind]
        parts = {name: Meta(pyds, part, owner) for name, part in PARTS.get(kind, {}).items()}
        labels = {
            name: bytearray(b"left from before" + bytes(LABEL - 16)) for name, k in fields.items() if k == "char array"
        }
        object.__setattr__(self, "_all", (pyds, kind, owner, fields, {**parts, **labels}))

    def __getattr__(self, name: str) -> Any:
        pyds, kind, owner, fields, values = self._all
        if name not in fields:
            raise Refused(f"pyds {API['version']}: {kind} has no {name}")
        if owner is not None and not owner.alive:
            raise Refused(f"{kind}.{name} of a buffer that has gone: freed memory")
        if fields[name] == "method":
            return pyds._method(self, kind, name)
        if fields[name] == "char array":
            return bytes(values[name]).split(b"\0")[0].decode("utf-8")
        if fields[name] == "char pointer" or (kind, name) == ("NvOSD_FontParams", "font_name"):
            return pyds._pointer(values.get(name))
        return values.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        pyds, kind, owner, fields, values = self._all
        bound = fields.get(name)
        if bound is None or bound in ("readonly", "method"):
            raise Refused(f"pyds {API['version']}: {kind}.{name} cannot be set")
        if owner is not None and not owner.alive:
            raise Refused(f"{kind}.{name} of a buffer that has gone: freed memory")
        if owner is not None and owner.batch is not None:
            pyds._needs_lock(owner.batch, f"{kind}.{name}")
        if (name in WHOLE and type(value) is not int) or (name in FLOATS and not isinstance(value, (int, float))):
            raise Refused(f"TypeError: {kind}.{name} = {value!r}")
        if name in ("x_offset", "y_offset", "font_size") and not 0 <= value < 2**32:
            raise Refused(f"TypeError: {kind}.{name} is unsigned, and gets {value!r}")
        if bound == "char array":
            data = value.encode("utf-8")
            if len(data) > LABEL or (len(data) == LABEL and data[-1]):
                raise Refused(f"{kind}.{name}: {len(data)} bytes written into {LABEL}, with no end")
            values[name][: len(data)] = data  # and no zero byte after it: bindings copy the string's bytes alone
            return
        if bound == "char pointer" and not isinstance(value, str):
            raise Refused(f"TypeError: {kind}.{name} = {value!r}")
        values[name] = value


class Pyds:
    """The module. jetson: surfaces are mapped, and have to be unmapped."""

    def __init__(self, jetson: bool = False, color: str = "RGBA") -> None:
        self._jetson, self._color, self._strings = jetson, color, {}
        self._buffers: dict[int, Buffer] = {}
        self._holders: dict[int, list[int]] = {}  # of each batch's lock, threads, as it is recursive
        self.calls: list[str] = []
        for kind in API["classes"]:
            setattr(self, kind, _Class(self, kind))
        for name, values in API["enums"].items():
            setattr(self, name, type(name, (), {value: f"{name}.{value}" for value in values}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in API["functions"]:
            raise Refused(f"pyds {API['version']} has no {name}")
        wanted = API["functions"][name]

        def function(*args: Any, **named: Any) -> Any:
            if len(args) + len(named) != len(wanted) or any(
                key not in [n for n, _ in wanted[len(args) :]] for key in named
            ):
                raise Refused(f"TypeError: {name}{wanted} called with {args}, {named}")
            given = [*args, *(named[n] for n, _ in wanted[len(args) :])]
            for (parameter, kind), value in zip(wanted, given):
                self._check(name, parameter, kind, value)
            self.calls.append(name)
            return getattr(self, f"_do_{name}")(*given)

        return function

    def _check(self, function: str, parameter: str, kind: str, value: Any) -> None:
        if kind in ("size_t", "int") and type(value) is not int:
            raise Refused(f"TypeError: {function}({parameter}={value!r}), {kind} expected")
        if kind == "void*" and not isinstance(value, (Capsule, Meta)):
            raise Refused(f"TypeError: {function}({parameter}={value!r}), a pointer expected")
        wanted = PARAMETERS.get(parameter) if not kind else None
        if (
            wanted
            and not (value is None and parameter == "obj_parent")
            and getattr(value, "_all", ("", ""))[1] != wanted
        ):
            raise Refused(f"TypeError: {function}({parameter}={value!r}), {wanted} expected")

    # what a test makes

    def buffer(self, frames: list[dict[str, Any]], pitch: int = 64) -> Buffer:
        """frames: source_id, frame_num, pixels (H, W, 3), objects: [dict(object_id, box, class_id, label)], pts;
        tensor: (component, map) of a detector."""
        buffer = Buffer([_surface(each["pixels"], pitch) for each in frames])
        batch = Meta(self, "NvDsBatchMeta", None)
        batch._all[4]["frame_meta_list"] = self._list([
            self._frame(buffer, number, each) for number, each in enumerate(frames)
        ])  # fmt: skip
        buffer.batch = batch
        self._buffers[hash(buffer)] = buffer
        return buffer

    def release(self, buffer: Buffer) -> None:
        """The pipeline has taken it back: its memory holds something else from now on."""
        if any(buffer.mapped.values()):
            raise Refused(f"surfaces mapped and not unmapped: {buffer.mapped}")
        if self._holders.get(id(buffer.batch)):
            raise Refused("the metadata's lock was not released")
        buffer.alive = False
        for _, memory in buffer.surfaces:
            memory[:] = 0xAA
        del self._buffers[hash(buffer)]

    def _frame(self, buffer: Buffer, number: int, given: dict[str, Any]) -> Meta:
        frame = Meta(self, "NvDsFrameMeta", buffer)
        objects = [self._object(buffer, each) for each in given.get("objects", [])]
        frame._all[4].update(
            batch_id=number, pad_index=given["source_id"], source_id=given["source_id"], frame_num=given["frame_num"],
            buf_pts=given.get("pts", 2**64 - 1), num_obj_meta=len(objects), obj_meta_list=self._list(objects),
            source_frame_width=1, source_frame_height=1, bInferDone=0,
            frame_user_meta_list=self._list(self._tensors(buffer, given)),
        )  # fmt: skip
        return frame

    def _object(self, buffer: Buffer, given: dict[str, Any]) -> Meta:
        meta = Meta(self, "NvDsObjectMeta", buffer)
        meta._all[4].update(object_id=given["object_id"], class_id=given.get("class_id", 0), confidence=0.9,
                            unique_component_id=1)  # fmt: skip
        meta._all[4]["obj_label"][:] = given.get("label", "plate").encode().ljust(LABEL, b"\0")
        meta.rect_params._all[4].update(zip(("left", "top", "width", "height"), map(float, given["box"])))
        return meta

    def _tensors(self, buffer: Buffer, given: dict[str, Any]) -> list[Meta]:
        found = []
        for kind, component, values in given.get("tensors", []):
            tensor = Meta(self, "NvDsInferTensorMeta", buffer)
            tensor._all[4].update(unique_id=component, num_output_layers=1, tensor=values)
            user = Meta(self, "NvDsUserMeta", buffer)
            user._all[4]["user_meta_data"] = Capsule(tensor)
            user.base_meta._all[4]["meta_type"] = f"NvDsMetaType.{kind}"
            found.append(user)
        return found

    def _list(self, items: list[Meta]) -> Meta | None:
        """A GList, None for an empty one."""
        node = None
        for item in reversed(items):
            before, node = node, Meta(self, "GList", item._all[2])
            node._all[4].update(data=Capsule(item), next=before)
        return node

    def _pointer(self, text: str | None) -> int:
        if text is None:
            return 0
        self._strings[id(text)] = text
        return id(text)

    def _needs_lock(self, batch: Meta, what: str) -> None:
        if threading.get_ident() not in self._holders.get(id(batch), []):
            raise Refused(f"{what} is written without the metadata's lock")

    def _method(self, meta: Meta, kind: str, name: str) -> Any:
        if (kind, name) != ("NvOSD_ColorParams", "set"):
            raise Refused(f"{kind}.{name}: not needed so far")

        def set_color(red: float, green: float, blue: float, alpha: float) -> None:
            for part, value in zip(("red", "green", "blue", "alpha"), (red, green, blue, alpha)):
                setattr(meta, part, value)

        return set_color

    # what pyds does

    def _do_gst_buffer_get_nvds_batch_meta(self, address: int) -> Meta | None:
        return self._buffers[address].batch

    def _do_nvds_acquire_meta_lock(self, batch: Meta) -> None:
        holders = self._holders.setdefault(id(batch), [])
        assert all(holder == threading.get_ident() for holder in holders)
        holders.append(threading.get_ident())

    def _do_nvds_release_meta_lock(self, batch: Meta) -> None:
        self._needs_lock(batch, "the lock")
        self._holders[id(batch)].pop()

    def _do_get_nvds_buf_surface(self, address: int, number: int) -> np.ndarray:
        if self._color not in ("RGBA", "RGB"):
            raise RuntimeError("get_nvds_buf_Surface: Currently we only support RGBA/RGB color Format")
        buffer = self._buffers[address]
        buffer.mapped[number] = buffer.mapped.get(number, 0) + int(self._jetson)
        return buffer.surfaces[number][0]

    def _do_unmap_nvds_buf_surface(self, address: int, number: int) -> None:
        if self._buffers[address].mapped.get(number, 0) < 1:
            raise Refused("what is not mapped is unmapped")
        self._buffers[address].mapped[number] = 0

    def _acquired(self, batch: Meta, kind: str) -> Meta:
        self._needs_lock(batch, kind)
        return Meta(self, kind, next(b for b in self._buffers.values() if b.batch is batch))

    def _do_nvds_acquire_classifier_meta_from_pool(self, batch: Meta) -> Meta:
        return self._acquired(batch, "NvDsClassifierMeta")

    def _do_nvds_acquire_label_info_meta_from_pool(self, batch: Meta) -> Meta:
        return self._acquired(batch, "NvDsLabelInfo")

    def _do_nvds_acquire_obj_meta_from_pool(self, batch: Meta) -> Meta:
        return self._acquired(batch, "NvDsObjectMeta")

    def _appended(self, holder: Meta, name: str, item: Meta) -> None:
        self._needs_lock(holder._all[2].batch, name)
        holder._all[4][name] = self._list([*items(holder, name), item])

    def _do_nvds_add_classifier_meta_to_object(self, obj: Meta, classifier: Meta) -> None:
        self._appended(obj, "classifier_meta_list", classifier)

    def _do_nvds_add_label_info_meta_to_classifier(self, classifier: Meta, label: Meta) -> None:
        self._appended(classifier, "label_info_list", label)
        classifier._all[4]["num_labels"] = len(items(classifier, "label_info_list"))

    def _do_nvds_add_obj_meta_to_frame(self, frame: Meta, obj: Meta, parent: Meta | None) -> None:
        self._appended(frame, "obj_meta_list", obj)
        frame._all[4]["num_obj_meta"] += 1

    def _do_get_nvds_LayerInfo(self, tensor: Any, number: int) -> Meta:
        tensor = tensor if isinstance(tensor, Meta) else tensor._target
        values = tensor._all[4]["tensor"]
        layer, dims = Meta(self, "NvDsInferLayerInfo", None), Meta(self, "NvDsInferDims", None)
        shape = np.zeros(8, np.uint32)
        shape[: values.ndim] = values.shape
        dims._all[4].update(numDims=values.ndim, numElements=values.size, d=shape)
        kind = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8"}[values.dtype.name]
        layer._all[4].update(dataType=f"NvDsInferDataType.{kind}", inferDims=dims, dims=dims, buffer=Capsule(values))
        return layer

    def _do_get_ptr(self, pointer: Any) -> int:
        return int(pointer._target.ctypes.data)

    def _do_get_string(self, pointer: int) -> str:
        return self._strings[pointer]


class _Class:
    """A class of the module: what matters is its cast."""

    def __init__(self, pyds: Pyds, kind: str) -> None:
        self.pyds, self.kind = pyds, kind

    def cast(self, pointer: Any) -> Meta:
        if API["classes"][self.kind].get("cast") != "method" or not isinstance(pointer, (Capsule, int)):
            raise Refused(f"TypeError: {self.kind}.cast({pointer!r})")
        target = getattr(pointer, "_target", None)
        if target is None or target._all[1] != self.kind:
            raise Refused(f"{self.kind}.cast of something else: the real one would read what lies there")
        return target


def items(holder: Meta, name: str) -> list[Meta]:
    """A GList's, for tests to look at."""
    found, node = [], holder._all[4].get(name)
    while node is not None:
        found.append(node._all[4]["data"]._target)
        node = node._all[4]["next"]
    return found


def _surface(pixels: np.ndarray, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 4), its rows a multiple of `pitch` bytes apart as decoders lay them; and the memory that it lies in."""
    height, width = pixels.shape[:2]
    row = -(-width * 4 // pitch) * pitch
    memory = np.full((height, row), 0x55, np.uint8)
    surface = np.lib.stride_tricks.as_strided(memory, (height, width, 4), (row, 4, 1))
    surface[..., :3], surface[..., 3] = pixels, 255
    return surface, memory

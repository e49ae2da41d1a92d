"""The stand-in for pyds is as strict as the real one is, or stricter; and what it is made of is what is called."""

import ast
import inspect

import pytest
from clips import needed
from pyds_standin import API, Capsule, Meta, Pyds, Refused, items

needed("cv2", "video")
from pipelines import picture  # noqa: E402

from clip4str.video.deepstream import adapter  # noqa: E402


@pytest.mark.parametrize(
    "use",
    [
        lambda pyds, frame: pyds.nvds_add_word(frame),
        lambda pyds, frame: pyds.nvds_acquire_meta_lock(),
        lambda pyds, frame: pyds.nvds_acquire_meta_lock(frame),
        lambda pyds, frame: pyds.get_nvds_buf_surface(frame, 0),
        lambda pyds, frame: pyds.get_nvds_buf_surface(1, batch_id=0),
        lambda pyds, frame: frame.source,
        lambda pyds, frame: setattr(frame, "words", 1),
        lambda pyds, frame: setattr(frame, "bInferDone", 1),  # without the lock
        lambda pyds, frame: pyds.NvDsObjectMeta.cast(Capsule(frame)),
        lambda pyds, frame: pyds.NvDsObjectMeta.cast(frame),
        lambda pyds, frame: setattr(Meta(pyds, "NvDsLabelInfo", None), "result_label", "a" * 129),
        lambda pyds, frame: setattr(Meta(pyds, "NvOSD_TextParams", None), "x_offset", 1.5),
    ],
)
def test_the_stand_in_refuses_what_pyds_has_not(use):
    pyds = Pyds()
    buffer = pyds.buffer([{"source_id": 0, "frame_num": 0, "pixels": picture({})}])
    with pytest.raises(Refused):
        use(pyds, items(buffer.batch, "frame_meta_list")[0])


def test_the_record_is_of_all_that_the_adapter_calls():
    """By the adapter's own source, so that no call is left out because no test makes it."""
    names = {node.attr for node in ast.walk(ast.parse(inspect.getsource(adapter)))
             if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Attribute, ast.Name))
             and (getattr(node.value, "attr", "") == "_pyds" or getattr(node.value, "id", "") == "pyds")}  # fmt: skip
    assert len(names) >= 14 and names <= {*API["functions"], *API["classes"], *API["enums"]}
    assert API["version"] == "1.2.0"

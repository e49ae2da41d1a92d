"""The element: what GStreamer asks of one. What it does from start to stop is Session's.

What is imported here is imported whenever GStreamer looks for plugins, perhaps by a Python that has nothing else.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from clip4str.core.errors import BackendError, BundleError, Clip4StrError, UsageError, first_line

from .introspection import GLib, GObject, Gst, GstBase
from .properties import DEFAULTS, PROPERTIES, Property

if TYPE_CHECKING:
    from .session import Session

FORMATS = ("NV12", "RGB", "BGR", "I420", "YV12", "GRAY8", "RGBA", "RGBx", "BGRA", "BGRx")
CAPS = f"video/x-raw, format={{ {', '.join(FORMATS)} }}, width=[1, 32768], height=[1, 32768]"


def _declared(known: Property) -> tuple[Any, ...]:
    """As PyGObject wants a property declared. Numbers have no limits here: what is wrong is said at the start."""
    limits = {int: (GLib.MININT, GLib.MAXINT), float: (-GLib.MAXDOUBLE, GLib.MAXDOUBLE)}.get(known.of, ())
    return (known.of, known.name, known.blurb, *limits, known.default, GObject.ParamFlags.READWRITE)


class Clip4StrReader(GstBase.BaseTransform):
    """video/x-raw in and out, the same buffers."""

    __gtype_name__ = "Clip4StrReader"
    __gstmetadata__ = ("CLIP4STR reader", "Filter/Analyzer/Video", "Finds, follows and reads the words of a video, and "
                       "tells each on the bus", "clip4str developers")  # fmt: skip
    __gsttemplates__ = tuple(
        Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(CAPS))
        for name, direction in (("sink", Gst.PadDirection.SINK), ("src", Gst.PadDirection.SRC))
    )
    __gproperties__ = {known.name: _declared(known) for known in PROPERTIES}  # noqa: RUF012 - PyGObject's name

    def __init__(self) -> None:
        super().__init__()
        self._values = dict(DEFAULTS)
        self._session: Session | None = None
        self.set_passthrough(True)

    def do_get_property(self, spec: Any) -> Any:
        return self._values[spec.name]

    def do_set_property(self, spec: Any, value: Any) -> None:
        """Counts from the next start on."""
        self._values[spec.name] = DEFAULTS[spec.name] if value is None else value

    def do_start(self) -> bool:
        try:
            from .session import Session

            self._session = Session(dict(self._values), self._tell, self._failed)
        except ImportError as error:
            version, missing = ".".join(map(str, sys.version_info[:2])), error.name or "a library"
            self._failed(BackendError(
                f"Python {version}, as GStreamer runs it, cannot load {missing} ({first_line(error)}); before the "
                'pipeline: eval "$(python -m clip4str.video.gstreamer)", by a Python of the same version'
            ))  # fmt: skip
            return False
        except Exception as error:
            self._failed(error)
            return False
        self.set_passthrough(not self._session.writes)
        return True

    def do_stop(self) -> bool:
        if self._session is not None:
            self._session.close()
        self._session = None
        return True

    def do_change_state(self, transition: Gst.StateChange) -> Gst.StateChangeReturn:
        if self._session is not None:
            if transition == Gst.StateChange.PAUSED_TO_READY:
                self._session.let_go()  # before pads are stopped, which waits for the threads in them
            elif transition in (Gst.StateChange.PLAYING_TO_PAUSED, Gst.StateChange.PAUSED_TO_PLAYING):
                self._session.pause(transition == Gst.StateChange.PLAYING_TO_PAUSED)
        return GstBase.BaseTransform.do_change_state(self, transition)

    def do_set_caps(self, incaps: Gst.Caps, _: Gst.Caps) -> bool:
        return self._session is not None and self._session.set_caps(incaps)

    def do_sink_event(self, event: Gst.Event) -> bool:
        if self._session is not None:
            self._session.event(event)
        return GstBase.BaseTransform.do_sink_event(self, event)

    def do_transform_ip(self, buffer: Gst.Buffer) -> Gst.FlowReturn:
        session = self._session
        if session is None or session.ended:
            return Gst.FlowReturn.ERROR
        try:
            session.look(buffer)
        except Exception as error:
            self._failed(error)
            return Gst.FlowReturn.ERROR
        return Gst.FlowReturn.OK

    def _tell(self, structure: Gst.Structure) -> None:
        self.post_message(Gst.Message.new_element(self, structure))

    def _failed(self, error: BaseException) -> None:
        """One line on the bus; what is no Clip4StrError is a defect, and has its traceback in the details."""
        line, details = str(error), type(error).__name__
        if not isinstance(error, Clip4StrError):
            line = f"{details}: {first_line(error)}"
            details = "".join(traceback.format_exception(error))
        domain, code = Gst.StreamError, Gst.StreamError.FAILED
        if isinstance(error, UsageError):
            domain, code = Gst.ResourceError, Gst.ResourceError.SETTINGS
        elif isinstance(error, BundleError):
            domain, code = Gst.ResourceError, Gst.ResourceError.OPEN_READ
        elif isinstance(error, BackendError):
            domain, code = Gst.LibraryError, Gst.LibraryError.INIT
        told = GLib.Error.new_literal(domain.quark(), line, code)
        self.post_message(Gst.Message.new_error(self, told, details))

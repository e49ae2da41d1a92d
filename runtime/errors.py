"""The errors of clip4str.core.errors, under the name by which they were first known."""

from clip4str.core.errors import *  # noqa: F403

"""What GStreamer's loader of Python plugins finds: see clip4str.video.gstreamer."""

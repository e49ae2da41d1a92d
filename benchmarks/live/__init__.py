"""An RTSP camera on this machine that can be broken in every way, for tests and benchmarks of live sources."""

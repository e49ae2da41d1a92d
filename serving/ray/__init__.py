"""An HTTP server on Ray Serve: `clip4str serve ray`. http_api.py is FastAPI alone, and knows nothing of Ray."""

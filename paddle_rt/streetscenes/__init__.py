"""StreetScenes: rendered street scenes with exact labels, made with NumPy and OpenCV alone."""

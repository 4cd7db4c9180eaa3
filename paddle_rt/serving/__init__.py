"""A service for an export: images come in by HTTP, labels, polygons, keypoints or classes go out."""

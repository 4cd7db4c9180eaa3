"""Top-down pose: keypoints of people whose boxes are known."""

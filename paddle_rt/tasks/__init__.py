"""What networks learn: data, losses, scores and predictions of each task."""

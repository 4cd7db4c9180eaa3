"""Images, videos and cameras in; label images, overlays and videos out."""

"""A page in the browser that shows what exports find in images, videos and the frames of a webcam.

`exports`, `media` and `examples` need no Gradio; `page` and `server` do.
"""

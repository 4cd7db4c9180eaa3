"""Data sets, class names and colours, pictures on disk. Importing it imports no Paddle: the deploy side uses it too."""

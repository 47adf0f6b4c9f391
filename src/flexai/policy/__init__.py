"""What to prefer: pure functions and small books, one idea a module, each with its source.

Filters and scores of placement, fair share, order of the queue, predictions. Knows the model and the books of
``cluster``; never events, clocks or the world. ``scheduling`` calls it; a new score is one module here and one test.
"""

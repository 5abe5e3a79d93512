"""One training step, taken apart: `facts` collects it as plain data, `text` and `svg` draw it."""

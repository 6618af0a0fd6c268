"""Records: labelled photos of any layout, what is wrong with them, and who validates where."""

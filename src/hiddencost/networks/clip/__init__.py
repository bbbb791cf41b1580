"""CLIP: networks with an image and a text tower, which classify images by texts.

In come open_clip's configurations, weights, and the names of a dataset's classes (`texts`). Out goes a file
of embedded texts, or a classifier over them (`model`). What differs from other networks the rest of the package asks
of the `family`.
"""

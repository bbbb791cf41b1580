"""CLIP: networks with an image and a text tower, which classify images by texts.

In come open_clip's configurations, weights, and the names of a dataset's classes (`texts`, `embed`). Out goes a file
of embedded texts, or a classifier over them (`model`). The rest of the package meets all of it through `family`.
"""

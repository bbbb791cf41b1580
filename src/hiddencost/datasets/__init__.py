"""Target tasks, from a dataset's own files to arrays and splits.

In come files as they are published, or a folder or arrays of the user's own, with the layout of their entry in the
catalog; `prepare` reads, checks and resizes them, `readers` know their formats. Out go uint8 images and int64 labels
to map into memory (`prepared`), and one permutation of each class, of which every budget takes the first images
(`splits`).
"""

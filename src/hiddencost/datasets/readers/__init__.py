"""Readers of datasets, a format each.

In come a dataset's files and the options of its entry in the catalog; `registry` finds the reader by its name. Out
goes a `RawDataset`: an image after another with its label, for training and for testing. What is read is checked and
resized afterwards, in `prepare`.
"""

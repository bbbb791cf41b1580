"""Formats of published checkpoints, a reader each.

In come the files of a download, out go weights under the architecture's names, with the masks and the narrower blocks
of a pruned network (`reading.ImportedCheckpoint`). Readers are found by name (`registry`) and share `reading` alone,
which reads a state dict as people save it (`torch_file`, `unpickle`) and runs nothing of a file.
"""

"""Networks: what they are made of, and how they are stored.

In come the files of a published checkpoint, as its format has them (`formats`, `checkpoint`). Out goes a backbone, a
folder of weights, masks and a manifest in one layout (`backbones`), or a network in memory, as it was published
(`build`) or as it computes with the least work (`inference`). What differs between kinds of networks is asked of
their family (`families`): which layers are pruned, how large the input is, how images are classified.
"""

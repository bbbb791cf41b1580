"""Compression that this workflow makes, the controls, and the gate that holds a backbone against what it declares.

In come a checkpoint as a backbone, and a study's settings of a compression or the name of a control (`make`). Out
goes another backbone and, of any backbone, a verification.json (`gate`): its sparsity as measured, its masks, and the
images that it knows. What a study, tables and figures ask of a compression or a control is in `registry` alone:
settings, label, sparsity, how it is applied and checked.
"""

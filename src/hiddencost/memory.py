"""The memory of jobs on a CPU: the allocator's settings, and how much is worked with."""

# glibc returns large freed blocks to the kernel at once; PyTorch would page the same tensors in again at each step
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

# MB, for what a network keeps of the images of a step, and its gradients, on a canvas of 224. It sets how many images
# go through the network at a time, and so how sums are rounded: a result stands on it.
WORK = 7000

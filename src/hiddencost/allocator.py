"""The memory of jobs on a CPU: the allocator's settings, and how much is worked with."""

# glibc returns large freed blocks to the kernel at once; PyTorch would page the same tensors in again at each step
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

WORK = 7000  # MB, for what a network keeps of the images of a step, and its gradients, on a canvas of 224

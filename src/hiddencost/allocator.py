"""The memory allocator's settings for jobs on a CPU."""

# glibc returns large freed blocks to the kernel at once; PyTorch would page the same tensors in again at each step
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

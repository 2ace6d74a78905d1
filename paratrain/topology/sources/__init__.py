"""Where the knowledge of a machine comes from: NVML, nvidia-smi, sysfs, CUDA, and what is doubtful about it."""

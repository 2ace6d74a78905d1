"""Reading what ``nvidia-smi topo -m`` has printed, of any age and damage."""

"""Everything that needs a GPU, by one command: ``bash tools/gpu_day.sh OUT``."""

"""Other people's words for what customers do, each translated to touchpoints and links and nothing else."""

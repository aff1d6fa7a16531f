"""Where candidates come from: each source bounded, all of them under one mask."""

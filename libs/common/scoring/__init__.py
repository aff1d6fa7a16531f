"""Features, scores and joins of models: the only place where they are computed, for serving and learning alike."""

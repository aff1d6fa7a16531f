"""Features, scores and joins of models: computed here only, for serving and learning alike."""

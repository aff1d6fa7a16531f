"""Where candidates come from: one room per source, each bounded; the same for serving and for learning."""

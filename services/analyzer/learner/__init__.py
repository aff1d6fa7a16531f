"""The learner: one process that folds the lessons of all partitions in one order, and publishes."""

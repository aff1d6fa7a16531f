"""What the recommender knows and decides, free of every I/O library."""

"""What the recommender does when asked: recommend, keep the catalogue, show decisions."""

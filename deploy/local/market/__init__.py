"""A market whose truth is known here and nowhere else: what showing an offer causes, customer by customer."""

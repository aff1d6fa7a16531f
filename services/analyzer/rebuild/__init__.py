"""Customer models, lessons and learned models folded anew from the stored events, beside the live ones."""

"""Trials: offers that were shown, or kept back as ghosts, and what came of them: a part of the model.

`record` holds what is remembered of a decision, `looks` what falls due by itself, `folds` what events do.
"""

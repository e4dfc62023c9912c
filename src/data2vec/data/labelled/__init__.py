"""Labelled data in the formats people have: one reader a task, one form for what they read."""

"""Downstream tasks, one file a kind: labelled data -> batch -> model -> answers -> score."""

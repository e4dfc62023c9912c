"""data2vec 2: one context encoder, three front doors."""

"""Raw input to answers: `data2vec.pipeline`."""

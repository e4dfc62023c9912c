"""The TensorFlow classes of the documentation, on Keras 3. Only `backend` imports keras and tensorflow."""

"""What is to be run: values, inputs, axes and segments, and the runs that are pending; NumPy only."""

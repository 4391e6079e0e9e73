"""What is to be run: tasks, values, inputs, axes and segments; NumPy only."""

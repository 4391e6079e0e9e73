"""Where the points of a study come from if nobody lists them: samplers, Optuna in batches, and budgets.

A search proposes points and is told their results; who executes them is not its business.
"""

"""The field's table, figure and curves: every detector on the same lists, beside what the paper printed.

Nothing is chosen here: thresholds and weights come from train lists, and every look at a test list is logged.
"""

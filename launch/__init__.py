"""Starts runs. Knows recipes and who plays which role; executes `python -m nexrl.roles`, never imports it, nor torch.

submit     command line (command: what it takes and does)
run        one run from beginning to end
stages     the recipe that runs first, kept by content
run_folder where a run lives, and who may use it
plan       what to start: pure
processes  starts it, watches it, ends it (guard: the same when this program is killed); supervisor: who is waited for
excerpt    the end of a log, as far as it tells why
progress   reads what a run writes; display, closing: shows it
"""

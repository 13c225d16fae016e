"""The command line: composing configs, jobs, exit codes, and what each command does."""

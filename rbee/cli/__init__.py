"""The command line: what an operator types, and what it answers.

Rule 1: one file per group of commands; `app` alone knows them all.
Rule 2: importing a command's file is cheap: what is slow (HTTP client, supervisor, NVML) is
        imported in the function that needs it, so that `rbee version` is answered at once.
Rule 3: a command returns its exit code or raises an `RbeeError`; `rbee.__main__` alone turns
        errors into messages and exit codes.
Rule 4: text that comes from a server or a model is made harmless (`terminal`) before it
        reaches a terminal.
"""

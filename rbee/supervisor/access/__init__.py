"""Who may do what: keys, roles, limits, and how they are found out.

Rule 1: what decides is synchronous and pure; the clock is an argument. What waits (argon2, the
        store) is in `verifier` and `watch`.
Rule 2: nothing here knows HTTP but the one header in `authorization`. The `Guard` of the face
        is the only one who asks.
"""

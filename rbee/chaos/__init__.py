"""Chaos: faults put to a real `rbee serve`, and one judge over what came of it.

Rule 1: the server is a process of its own, and is seen from outside only: by its HTTP face, its
        log, its exit code, and what the kernel tells of its processes.
Rule 2: a drill, one scenario with one seed, is a process of its own, too, which adopts whatever
        its server leaves behind. So nothing is looked for by name, and nothing is overlooked.
"""

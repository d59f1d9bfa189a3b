"""The hour: one server, one random fault after the other, and what clients get meanwhile.

Rule 1: it is a drill as the others are, with the same server, clients, probes, looks behind and
        judge; only that its fault is a long row of the faults that the catalogue has.
Rule 2: which faults come, when, and what is random in each, is drawn from the seed.
"""

"""JWTs: who bears one of the configured issuer, and which of them were revoked.

Rule 1: what decides is pure and synchronous: the JWT's form (`form`), the issuer's keys
        (`key_set`), claims (`claims`), addresses (`addresses`). The clock is an argument.
Rule 2: nothing in a JWT chooses how it is verified. Its ``kid`` is a dictionary key; the
        algorithm is that of the key's type.
Rule 3: only `signatures` knows PyJWT and cryptography, only `redis_server` knows Redis. They cost
        some 20 MB, and are imported only where JWTs are configured.
"""

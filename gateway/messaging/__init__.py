"""Messages between the parts: written into the outbox with their effect, carried to a broker where there is one.

Every message is a hint (RULES 4): losing or doubling any of them changes no result, since the rows are what counts.
"""

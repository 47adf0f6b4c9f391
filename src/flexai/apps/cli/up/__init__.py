"""``flexai up`` and ``down``: start the processes of a pool, keep them alive, stop them.

Lives here: which processes there are, in which order, when each is ready, and restarting what dies. May never: hold
anything that would be lost with it. A killed ``up`` leaves its processes running; the next one takes them over.
"""

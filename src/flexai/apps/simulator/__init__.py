"""``flexai simulate``: the production scheduler over a trace, in virtual time.

Opens files, draws seeds, prints tables and plots; everything that decides or measures lives in ``simulation``.
"""

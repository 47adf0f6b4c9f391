"""``flexai demo``: one mixed morning of jobs, first with whole cards, then with slices, on a live pool.

Lives here: the jobs and where their sizes come from, playing them through the pool's socket like any user, and what is
reported. May never: show a figure that was not measured in this run.
"""

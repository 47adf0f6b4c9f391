"""This machine's processes, cgroups and files, from the agent's side."""

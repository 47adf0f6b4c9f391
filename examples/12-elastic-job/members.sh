#!/bin/sh
# How many members of job 2 run.
flexai jobs --json | python3 -c '
import json, sys
(job,) = [job for job in json.load(sys.stdin)["items"] if job["id"] == "2"]
states = [member["state"] for member in job["members"]]
print(states.count("running"), "of", len(states), "members run")
'

#!/bin/sh
# What each slice asked for and got over the last second, rounded to a tenth of the card.
flexai devices --json | python3 -c '
import json, sys
for card in json.load(sys.stdin)["items"]:
    for one in card["slices"]:
        asked, limit, got = one["asked_milli"] // 10, one["limit_milli"] // 10, one.get("got_milli_1s", 0)
        print(one["name"], f"asked {asked} % limit {limit} %: got about {round(got / 100) * 10} %")
'

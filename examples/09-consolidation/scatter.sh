#!/bin/sh
# Two halves on two cards: what filled the rest of each card is gone afterwards.
set -e
half="--share 50% --memory 40Gi --checkpointable"
flexai submit $half --name left -- sleep 120
flexai submit --share 50% --memory 90Gi --name filler -- sleep 120
flexai submit --share 50% --memory 90Gi --name filler -- sleep 120
sleep 1
flexai submit $half --name right -- sleep 120
sleep 1
flexai cancel 2 3 >/dev/null
sleep 1

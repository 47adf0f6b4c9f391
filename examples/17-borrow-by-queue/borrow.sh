# Two large jobs of queue research, then six small ones of queue batch.
set -e
borrow() {
    flexai submit --queue "$1" --class best_effort --share "$2" --memory 4Gi --name "$3" -- \
        flexai-workload flood --kernel-us 1000 --seconds 90
}
for n in 1 2; do borrow research 40% "large$n"; done
for n in 1 2 3 4 5 6; do borrow batch 10% "small$n"; done

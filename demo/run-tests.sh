# Runs every test of the project; the pipeline lands nothing that fails here.
set -eu
cd "$(dirname "$0")"
for test in tests/*.sh; do
    [ -e "$test" ] || continue
    sh "$test" || { echo "FAILED $test"; exit 1; }
    echo "passed $test"
done

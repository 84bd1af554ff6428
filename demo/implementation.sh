# Writes the code that makes the test pass; adds what a review asked for.
set -eu
mkdir -p bin
code=bin/$PIPELINE_TASK_ID.sh
case $PIPELINE_TASK_ID in
greet) body='echo "Hello, $1"' ;;
shout) body='sh "$(dirname "$0")/greet.sh" "$1" | tr a-z A-Z' ;;
count) body='echo "$#"' ;;
twice) body='echo "$1$1"' ;;
esac
usage=
if grep -q 'say what it is for' "$PIPELINE_TASK_FILE"; then
    usage="# $PIPELINE_TASK_ID: see docs/$PIPELINE_TASK_ID.md
"
fi
printf '%s%s\n' "$usage" "$body" >"$code"
sh "tests/$PIPELINE_TASK_ID.sh"
pipeline done

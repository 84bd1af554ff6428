# Writes a test, and sees it fail before there is any code.
set -eu
mkdir -p tests
case $PIPELINE_TASK_ID in
greet) call='greet.sh World' want='Hello, World' ;;
shout) call='shout.sh World' want='HELLO, WORLD' ;;
count) call='count.sh one two three' want='3' ;;
twice) call='twice.sh ab' want='abab' ;;
*) pipeline block "no idea what $PIPELINE_TASK_ID is to print" && exit 0 ;;
esac
cat >"tests/$PIPELINE_TASK_ID.sh" <<T
found=\$(sh bin/$call)
[ "\$found" = '$want' ] || { echo "expected $want, found \$found"; exit 1; }
T
if sh "tests/$PIPELINE_TASK_ID.sh" 2>/dev/null; then
    pipeline fail "the test passes before there is any code"
else
    pipeline done
fi

# Leaves a design note for the ones who come after.
set -eu
mkdir -p docs
{
    echo "# $PIPELINE_TASK_ID"
    echo
    echo "A command \`bin/$PIPELINE_TASK_ID.sh\` in plain sh, tested by \`tests/$PIPELINE_TASK_ID.sh\`."
} >"docs/$PIPELINE_TASK_ID.md"
printf '\n## Notes\n\nThe design is in docs/%s.md.\n' "$PIPELINE_TASK_ID" >>"$PIPELINE_TASK_FILE"
pipeline done

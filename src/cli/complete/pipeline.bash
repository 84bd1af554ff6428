# Completions of pipeline for bash; the words come from the program itself.
_pipeline() {
    local program=${COMP_WORDS[0]/#\~/$HOME} line
    COMPREPLY=()
    type -P "$program" >/dev/null || program=pipeline
    while IFS= read -r line; do
        case $line in
        :files) compopt -o default ;;
        :folders) compopt -o dirnames ;;
        *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("$program" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _pipeline pipeline

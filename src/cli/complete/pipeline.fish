# Completions of pipeline for fish; the words come from the program itself.
function __pipeline_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command pipeline __complete -- $words[2..-1] "$current" 2>/dev/null)
    switch "$lines[1]"
        case :files
            __fish_complete_path "$current"
        case :folders
            __fish_complete_directories "$current"
        case '*'
            string join \n -- $lines
    end
end
complete -c pipeline -f -a '(__pipeline_complete)'

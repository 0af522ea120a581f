# Completion of holo in fish. `holo completion fish` prints it.
function __holo_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    set -e words[1]
    set -l lines ($program __complete (count $words) $words "$current" 2>/dev/null)
    or return
    set -l how $lines[1]
    set -e lines[1]
    printf '%s\n' $lines
    set -l option (string match -r -- '^--[^=]*=' "$current")
    set -l path (string replace -- "$option" '' "$current")
    switch $how
        case files
            __fish_complete_path "$path" | string replace -r '^' -- "$option"
        case directories
            __fish_complete_directories "$path" '' | string replace -r '^' -- "$option"
        case 'command *'
            set -l first (math (string replace 'command ' '' $how) + 1)
            complete -C (string join ' ' -- (string escape -- $words[$first..-1]) "$current")
    end
end
complete -c holo -f -a '(__holo_complete)'
complete -c holotree -f -a '(__holo_complete)'

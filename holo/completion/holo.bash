# Completion of holo in bash. `holo completion bash` prints it.
_holo() {
    local IFS=$'\n' i word line how="" program=${COMP_WORDS[0]/#\~/$HOME}
    local words=() starts=()
    # Bash also cuts words at = and at colons.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#words[@]})) && [[ $word == [=:]* || ${COMP_WORDS[i - 1]} == *[=:] ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
            starts+=("$i")
        fi
    done
    local last=$((${#words[@]} - 1))
    local cut=${words[last]%"$2"}
    COMPREPLY=()
    {
        IFS= read -r how
        while IFS= read -r line; do
            line=${line%%$'\t'*}
            COMPREPLY+=("${line#"$cut"}")
        done
    } < <("$program" __complete "$last" "${words[@]}" 2>/dev/null)
    case $how in
        files)
            if ((${#COMPREPLY[@]})); then
                compopt -o filenames
                COMPREPLY+=($(compgen -f -- "$2"))
            else
                compopt -o default
            fi
            ;;
        directories) compopt -o dirnames ;;
        command\ *)
            i=${starts[${how#* }]}
            if declare -F _command_offset >/dev/null; then
                unset IFS
                _command_offset "$i"
            elif ((i == COMP_CWORD)); then
                COMPREPLY=($(compgen -c -- "$2"))
            else
                compopt -o default
            fi
            ;;
    esac
}
complete -F _holo holo holotree

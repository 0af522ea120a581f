#compdef holo holotree
# Completion of holo in zsh. `holo completion zsh` prints it.
_holo() {
    local how
    local -a lines
    lines=("${(@f)$("${(Q)words[1]/#\~/$HOME}" __complete $((CURRENT - 2)) \
        "${(@Q)words[2,CURRENT - 1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    how=$lines[1]
    shift lines
    if (( $#lines )); then
        lines=("${(@)lines//:/\\:}")
        lines=("${(@)lines/$'\t'/:}")
        _describe holo lines
    fi
    case $how in
        files)
            compset -P '--*='
            _files
            ;;
        directories)
            compset -P '--*='
            _files -/
            ;;
        command\ *)
            shift $((${how#* } + 1)) words
            (( CURRENT -= ${how#* } + 1 ))
            _normal
            ;;
    esac
}
if [[ $funcstack[1] == _holo ]]; then
    _holo "$@"
else
    compdef _holo holo holotree
fi

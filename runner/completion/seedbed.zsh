# Completion of seedbed in zsh: eval "$(seedbed completion zsh)"
_seedbed() {
    local -a candidates open closed
    candidates=("${(@f)$(seedbed complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    open=(${(M)candidates:#*[=./]})
    closed=(${candidates:#*[=./]})
    (( ${#open} )) && compadd -Q -S '' -a open
    (( ${#closed} )) && compadd -Q -a closed
    return 0
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _seedbed seedbed

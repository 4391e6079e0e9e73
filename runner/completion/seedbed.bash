# Completion of seedbed in bash: eval "$(seedbed completion bash)"
_seedbed_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" current="${COMP_WORDS[COMP_CWORD]}" word candidate
    word="${line##*[[:space:]]}"
    # bash takes = and : for the ends of words, and replaces only what follows them
    [[ $current == [=:] ]] && current=""
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"${word%"$current"}"}")
    done < <(seedbed complete "$line" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _seedbed_completion seedbed

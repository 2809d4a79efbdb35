# Completion of strate for bash; written by `strate completion bash`.

# Bash splits words at `:` and `=` (COMP_WORDBREAKS): they are put together again for the question, and what bash has
# already behind the last of them is cut from the answers.
_strate() {
    local rest=$COMP_LINE index=-1 i word blank
    local -a words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        blank=${rest%%[![:space:]]*}
        if [[ $i -eq 0 || -n $blank || -z $rest ]]; then
            index=$((index + 1))
            words[index]=$word
        else
            words[index]+=$word
        fi
        rest=${rest#"$blank"}
        rest=${rest#"$word"}
    done
    local current=${words[index]} cut=
    case $current in
        *[:=]*) cut=${current%"${current##*[:=]}"} ;;
    esac
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("${word#"$cut"}")
    done < <("${words[0]}" __complete bash "$index" "${words[@]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o default -F _strate strate

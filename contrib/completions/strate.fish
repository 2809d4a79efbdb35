# Completion of strate for fish; written by `strate completion fish`.

function __strate_complete
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l answers ($words[1] __complete fish (count $words) $words "$current" 2>/dev/null)
    if set -q answers[1]
        printf '%s\n' $answers
    else
        __fish_complete_path "$current"
    end
end

complete --command strate --no-files --arguments '(__strate_complete)'

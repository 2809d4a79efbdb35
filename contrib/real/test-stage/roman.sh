roman() {
    local n=$1 out= i
    local values=(10 9 5 4 1) letters=(X IX V IV I)
    for i in "${!values[@]}"; do
        while ((n >= values[i])); do out+=${letters[i]} n=$((n - values[i])); done
    done
    echo "$out"
}
[ -z "${1-}" ] || roman "$1"

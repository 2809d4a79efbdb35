. ./roman.sh
status=0
for pair in 1:I 4:IV 9:IX 14:XIV 38:XXXVIII; do
    if [ "$(roman "${pair%:*}")" = "${pair#*:}" ]; then echo "ok $pair"; else echo "not ok $pair"; status=1; fi
done
exit $status

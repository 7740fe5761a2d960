#!/bin/sh
# Checks the model of the append protocol (append.pml) with Spin: the laws hold in every state, and each variant
# without a protection breaks one. Needs `spin` and `gcc` (Debian: apt-get install spin gcc).
#
#   proof/check-spin.sh          about two minutes and 1.2 GB
#   proof/check-spin.sh small    some seconds: without calls that are given up
#
# Prints one line a check: what, states, seconds, verdict. Exit code 1 where a verdict is not the one expected,
# 77 where spin or gcc is not there.
set -eu
size=${1:-whole}
model=$(cd "$(dirname "$0")" && pwd)/append.pml
for tool in spin gcc; do
    command -v "$tool" > /dev/null || { echo "skipped: no $tool here (apt-get install spin gcc)"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$model" "$work"
cd "$work"
bad=0
collapse=-DCOLLAPSE # less memory, half as much time again
[ "$size" != small ] || collapse=''

# check <what is expected: holds or breaks> <safety or live> <-D…>
check() {
    expected=$1 kind=$2
    shift 2
    quick=-O1
    [ "$expected" = holds ] || quick=-O0 # it is found sooner than a compiler has thought about it
    if [ "$kind" = live ]; then
        spin -a -DLIVE "$@" append.pml > spin.out
        gcc $quick -w $collapse -DNFAIR=3 -DMEMLIM=4000 -o pan pan.c
        ./pan -a -f -m1000000 > pan.out
    else
        spin -a "$@" append.pml > spin.out
        gcc $quick -w -DSAFETY $collapse -DMEMLIM=4000 -o pan pan.c
        ./pan -m1000000 > pan.out
    fi
    if grep -q 'errors: 0' pan.out && ! grep -q 'Search not completed\|max search depth too small\|out of memory' pan.out
    then verdict=holds
    elif grep -q '^pan:1: \(assertion violated\|acceptance cycle\)' pan.out
    then verdict=breaks
    else verdict='not decided'; cat spin.out pan.out
    fi
    states=$(awk '/states, stored/ { print $1 }' pan.out)
    seconds=$(awk '/elapsed time/ { print $4 }' pan.out)
    wrong=''
    [ "$verdict" = "$expected" ] || { bad=1; wrong="  EXPECTED: $expected"; }
    printf '%-7s %-48s %10s states %7s s  %s%s\n' "$kind" "$*" "$states" "$seconds" "$verdict" "$wrong"
}

none='-DCRASHES=0 -DLOSSES=0'
case $size in
small)
    check holds safety -DCRASHES=1 -DLOSSES=0
    check holds live $none
    ;;
*)
    check holds safety -DCRASHES=1 -DLOSSES=1
    check holds safety -DCRASHES=2 -DLOSSES=0
    check holds live $none
    check holds live -DCRASHES=1 -DLOSSES=0
    ;;
esac
check breaks safety -DNO_FENCE $none
check breaks safety -DTAIL_FENCE $none
check breaks safety -DNO_TAIL $none
check breaks safety -DPARTIAL_IS_WHOLE $none
check breaks safety -DOWN_MARK -DCRASHES=1 -DLOSSES=0
check holds safety -DNO_FENCE -DONLY_KEYS -DCRASHES=1 -DLOSSES=0 # with one version of the code, the keys suffice
exit $bad

#!/usr/bin/env bash
# Stands for a program of a cloud, under its name: notes its arguments, one line per call, and
# answers as $FAKE/rules say. With $FAKE/hosts, copying and ssh happen, in those folders.
shopt -s nullglob
printf -v call '%q ' "${0##*/}" "$@"
echo "${call% }" >>"$FAKE/calls"
case "$*" in *--filename=-*) cat >>"$FAKE/stdin" ;; esac
for rule in "$FAKE"/rules/*/; do
  # shellcheck disable=SC2254  # the rule is a pattern
  case "$*" in *$(<"$rule/pattern")*) ;; *) continue ;; esac
  answer=$rule$(<"$rule/next")
  [[ ! -e ${answer%/*}/$((${answer##*/} + 1)) ]] || echo $((${answer##*/} + 1)) >"$rule/next"
  cat "$answer/out"
  cat "$answer/err" >&2
  exit "$(<"$answer/code")"
done
for host in "$FAKE"/hosts/*/; do
  case "$*" in
    *" ssh "*)
      command=${!#}
      (cd "$host" && HOME=$PWD bash -c "${command#--command=}") || exit
      ;;
    *" scp "*)
      cp -p "$5" "$host${6#*:}" || exit
      ;;
  esac
done

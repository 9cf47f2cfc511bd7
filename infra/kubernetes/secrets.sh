#!/usr/bin/env bash
# Prints Secrets for `kubectl apply --namespace NAMESPACE -f -`. Each section of the file becomes one Secret.
#
#   secrets.sh FILE [NAME ...]   all sections, or those named
set -euo pipefail

stop() {
  echo "secrets.sh: $1" >&2
  exit 2
}

[[ $# -ge 1 ]] || stop 'expected secrets.sh FILE [NAME ...], received nothing; FILE is overlays/OVERLAY/secrets.ini'
file=$1
shift
[[ -r $file ]] || stop "expected a file of secrets, received FILE=$file; make one: infra/new_env.sh $file"

wanted() {
  local name
  (($# > 1)) || return 0
  for name in "${@:2}"; do
    [[ $name == "$1" ]] && return 0
  done
  return 1
}

number=0 section=''
output=$(
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1))
    if [[ -z $line || $line == \#* ]]; then
      continue
    elif [[ $line =~ ^\[([a-z0-9]([a-z0-9-]*[a-z0-9])?)\]$ ]]; then
      section=${BASH_REMATCH[1]}
      wanted "$section" "$@" || continue
      printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n' "$section"
      printf '  labels: { app.kubernetes.io/part-of: cxr }\nstringData:\n'
    elif [[ -n $section && $line =~ ^([A-Z][A-Z0-9_]*)=(.*)$ ]]; then
      key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
      # An empty value means that nobody filled it in; "" means that it is empty on purpose.
      [[ -n $value ]] || stop "expected a value in line $number of $file, received $key=; fill it in, or write \"\""
      [[ $value == '""' ]] && value=''
      wanted "$section" "$@" || continue
      printf "  %s: '%s'\n" "$key" "${value//\'/\'\'}"
    else
      # The line is not shown, because it may contain a password.
      stop "expected [NAME], KEY=VALUE or a comment in line $number of $file; correct it"
    fi
  done <"$file"
)
for name in "$@"; do
  grep -qx "  name: $name" <<<"$output" || stop "expected sections of $file, received NAME=$name; correct the name"
done
printf '%s\n' "$output"

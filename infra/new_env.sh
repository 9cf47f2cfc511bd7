#!/usr/bin/env bash
# Writes a file of settings from its example. Each empty value becomes 32 random bytes as URL-safe base64.
#
#   new_env.sh [FILE]   file to write; FILE.example must be beside it. Default: infra/.env
set -euo pipefail

file=${1:-$(dirname "$0")/.env}
example=$(dirname "$0")/.env.example
[[ -e $file.example ]] && example=$file.example
if [[ -e $file ]]; then
  echo "new_env.sh: expected to write a new file, received $file, which is there; its passwords may be in use" >&2
  exit 2
fi
umask 077
while IFS= read -r line; do
  if [[ $line =~ ^[A-Z0-9_]+=$ ]]; then
    line+=$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')
  fi
  printf '%s\n' "$line"
done <"$example" >"$file.new"
mv "$file.new" "$file"

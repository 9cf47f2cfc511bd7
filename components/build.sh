#!/usr/bin/env bash
# Builds the images with docker or podman, whichever is installed, and prints their sizes as a table.
#
#   build.sh [data|train|train-gpu|serve|node|mlflow ...]    all of them if none is named
#
# Optional environment variables:
#   ENGINE        docker, podman, or the path of one; otherwise the first on the path that works
#   REGISTRY      the names of the images begin with it, e.g. registry.example.org/radiology
#   VERSION       tag of the images; by default the version of the package. The images are also tagged latest
#   CERTIFICATES  file with the certificate authorities to trust while packages are fetched
#   PIP_CONFIG    pip.conf that names your own package index; like the certificates, it becomes part of no layer
set -euo pipefail
cd "$(dirname "$0")/.."

known=(data train train-gpu serve node mlflow)
targets=("${@:-${known[@]}}")
(($#)) || targets=("${known[@]}")

refuse() {
  printf 'build.sh: %s\n' "$@" >&2
  exit 2
}

# docker needs BuildKit. Up to version 22 it is part of docker's client; from 23 on it is the plugin buildx.
works() {
  "$1" info >/dev/null 2>&1 || return 1
  [[ ${1##*/} != docker* ]] || DOCKER_BUILDKIT=1 "$1" build --help 2>&1 | grep -q -- '--secret'
}

find_engine() {
  local candidate candidates tried=()
  if [[ -n ${ENGINE:-} ]]; then
    candidates=("$ENGINE")
  else
    mapfile -t candidates < <(type -ap docker podman)
  fi
  for candidate in "${candidates[@]}"; do
    if works "$candidate"; then
      engine=$candidate
      return
    fi
    tried+=("$candidate")
  done
  refuse "expected docker with BuildKit (plugin buildx from version 23 on) or podman, and that it answers; received \
${tried[*]:-neither}: install one, or start its daemon"
}

for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || refuse "expected one of: ${known[*]}; received target=$target"
done
for name in CERTIFICATES PIP_CONFIG; do
  [[ -z ${!name:-} || -r ${!name} ]] || refuse "expected a readable file, received $name=${!name}; correct the path"
done
find_engine

version=${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/cxr/__init__.py)}
prefix=${REGISTRY:+${REGISTRY%/}/}
options=(--build-arg "VERSION=$version" --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 --exclude '*')")
[[ -z ${CERTIFICATES:-} ]] || options+=(--secret "id=certificates,src=$CERTIFICATES")
[[ -z ${PIP_CONFIG:-} ]] || options+=(--secret "id=pip,src=$PIP_CONFIG")
[[ ${engine##*/} != podman* ]] || options+=(--format docker) # only this format has health checks

for target in "${targets[@]}"; do
  if [[ $target == mlflow ]]; then
    file=mlflow/Dockerfile which=()
  else
    file=components/Dockerfile which=(--target "$target")
  fi
  [[ ${engine##*/} != podman* ]] || which+=(--ignorefile "$file.dockerignore")
  name=${prefix}cxr-$target
  echo "build.sh: $name:$version"
  DOCKER_BUILDKIT=1 "$engine" build "${options[@]}" --file "$file" "${which[@]}" --tag "$name:$version" --tag "$name:latest" .
done

printf '\n| image | size |\n|---|---|\n'
for target in "${targets[@]}"; do
  size=$("$engine" image inspect --format '{{.Size}}' "${prefix}cxr-$target:$version")
  # shellcheck disable=SC2016  # the backquotes are Markdown
  printf '| `cxr-%s` | %d.%02d GB |\n' "$target" $((size / 1000000000)) $((size / 10000000 % 100))
done

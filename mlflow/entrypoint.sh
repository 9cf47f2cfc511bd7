#!/usr/bin/env bash
# The tracking server for a team. PostgreSQL holds runs, registry and users; S3 holds the files.
#
#   entrypoint.sh                    serve
#   entrypoint.sh upgrade            update the tables of the database for this MLflow; make a backup first
#   entrypoint.sh buckets NAME ...   create the buckets that do not exist
#
# Each waits for its store, and says so. Exit status 2: a setting is wrong; 1: a store did not answer in time.
# All settings are environment variables; README.md lists them. A secret NAME can be in a file that NAME_FILE names.
set -euo pipefail

server=$(dirname "$(readlink -f "$0")")/server

problems=()

problem() {
  problems+=("$1")
}

read_secret() {
  local name=$1 file="$1_FILE"
  [[ -n ${!file:-} ]] || return 0
  if [[ -n ${!name:-} ]]; then
    problem "expected $name or $file, received both; keep one"
  elif [[ ! -r ${!file} ]]; then
    problem "expected a readable file, received $file=${!file}; correct the path or its permissions"
  else
    export "$name=$(<"${!file}")"
  fi
}

need() {
  local name=$1 pattern=$2 what=$3 value=${!1:-}
  # The value of a secret is never shown.
  if [[ -z $value ]]; then
    problem "expected $name to be $what, received nothing; set it"
  elif [[ ! $value =~ ^($pattern)$ ]]; then
    [[ $name == *PASSWORD* || $name == *KEY* ]] && value='(hidden)'
    problem "expected $name to be $what, received $name=$value; correct it"
  fi
}

need_database() {
  read_secret PGPASSWORD
  need PGHOST '[A-Za-z0-9._-]+' "PostgreSQL's host name"
  need PGPORT '[0-9]+' "PostgreSQL's port"
  need PGDATABASE '[A-Za-z0-9_-]+' 'the name of a database'
  need PGUSER '[A-Za-z0-9_-]+' 'the user who owns the database'
  need PGPASSWORD '.+' "that user's password"
}

need_keys() {
  read_secret AWS_SECRET_ACCESS_KEY
  # If neither is set, the role of the machine is used, as in clouds.
  if [[ -n ${AWS_ACCESS_KEY_ID:-} && -z ${AWS_SECRET_ACCESS_KEY:-} ]]; then
    problem 'expected AWS_SECRET_ACCESS_KEY beside AWS_ACCESS_KEY_ID, received nothing; set both or neither'
  elif [[ -z ${AWS_ACCESS_KEY_ID:-} && -n ${AWS_SECRET_ACCESS_KEY:-} ]]; then
    problem 'expected AWS_ACCESS_KEY_ID beside AWS_SECRET_ACCESS_KEY, received nothing; set both or neither'
  fi
}

need_files() {
  need_keys
  need MLFLOW_ARTIFACTS_DESTINATION 's3://[A-Za-z0-9][A-Za-z0-9.-]+(/.*)?' 's3://bucket/prefix'
  need SIGNED_DOWNLOADS 'true|false' 'true or false: whether clients get addresses of the S3 store'
}

need_buckets() {
  local name
  need_keys
  (($# > 0)) || problem 'expected entrypoint.sh buckets NAME ..., received no name; add the names of the buckets'
  for name in "$@"; do
    [[ $name =~ ^[a-z0-9][a-z0-9.-]+$ ]] ||
      problem "expected the name of a bucket (lower-case letters, digits, '.', '-'), received NAME=$name; correct it"
  done
}

need_access() {
  local name
  for name in MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY; do
    read_secret "$name"
  done
  # '*' would allow any web page to reach the server under its own host name (DNS rebinding).
  need MLFLOW_SERVER_ALLOWED_HOSTS '[^*, ][^, ]*(, *[^*, ][^, ]*)*' 'host names, with commas, under which people reach the server'
  need MLFLOW_AUTH_ADMIN_USERNAME '[A-Za-z0-9._@-]+' "the administrator's name"
  need MLFLOW_AUTH_ADMIN_PASSWORD '.{12,}' 'at least 12 characters'
  need MLFLOW_AUTH_DEFAULT_PERMISSION 'READ|USE|EDIT|MANAGE|NO_PERMISSIONS' \
    'READ, USE, EDIT, MANAGE or NO_PERMISSIONS: what each user may do with what others made'
  need MLFLOW_FLASK_SERVER_SECRET_KEY '.{16,}' 'at least 16 characters'
  need MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY '[A-Za-z0-9_-]{43}=' '32 random bytes as URL-safe base64'
  need MLFLOW_PORT '[0-9]+' 'a port'
  need MLFLOW_WORKERS '[1-9][0-9]*' 'a number of processes'
}

stop_if_any() {
  ((${#problems[@]} == 0)) && return 0
  printf 'entrypoint.sh: %s\n' "${problems[@]}" >&2
  exit 2
}

store_uri() {
  # The address has no password: libpq reads PGPASSWORD, so a list of processes does not show it.
  printf 'postgresql+psycopg2://%s@%s:%s/%s' "$PGUSER" "$PGHOST" "$PGPORT" "$PGDATABASE"
}

stores() {
  # The shell of a container gets no signal that it does not ask for; without this, stopping would wait for the wait.
  python "$server/stores.py" "$@" &
  # shellcheck disable=SC2064 # the number of the process now
  trap "kill $! 2>/dev/null; exit 143" TERM INT
  wait $!
  trap - TERM INT
}

serve() {
  MLFLOW_AUTH_CONFIG_PATH=$(mktemp -t basic_auth.XXXXXX.ini)
  export MLFLOW_AUTH_CONFIG_PATH
  # MLflow reads name and password of the administrator from the environment, not from this file. A registration takes
  # 200 requests. Without the cache each one would hash the password again, which is slow on purpose. After a password is
  # changed or a user removed, all processes know it within the time of the cache.
  cat >"$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = $MLFLOW_AUTH_DEFAULT_PERMISSION
database_uri = $(store_uri)
auth_cache_ttl_seconds = 60
INI
  stores tables "$(store_uri)"
  if [[ $SIGNED_DOWNLOADS == false ]]; then
    # MLflow has no setting for this. It finds through_server.py by the entry point that is beside it.
    export PYTHONPATH=$server${PYTHONPATH:+:$PYTHONPATH}
  fi
  exec mlflow server \
    --app-name basic-auth \
    --backend-store-uri "$(store_uri)" \
    --serve-artifacts \
    --artifacts-destination "$MLFLOW_ARTIFACTS_DESTINATION" \
    --allowed-hosts "$MLFLOW_SERVER_ALLOWED_HOSTS" \
    --host "$MLFLOW_HOST" \
    --port "$MLFLOW_PORT" \
    --workers "$MLFLOW_WORKERS"
}

upgrade() {
  stores upgrade "$(store_uri)"
}

buckets() {
  stores buckets "$@"
}

export PGPORT=${PGPORT:-5432}
export WAIT_SECONDS=${WAIT_SECONDS:-900}
export SIGNED_DOWNLOADS=${SIGNED_DOWNLOADS:-false}
export MLFLOW_AUTH_ADMIN_USERNAME=${MLFLOW_AUTH_ADMIN_USERNAME:-admin}
export MLFLOW_AUTH_DEFAULT_PERMISSION=${MLFLOW_AUTH_DEFAULT_PERMISSION:-READ}
export MLFLOW_HOST=${MLFLOW_HOST:-127.0.0.1}
export MLFLOW_PORT=${MLFLOW_PORT:-5000}
export MLFLOW_WORKERS=${MLFLOW_WORKERS:-2}
export MLFLOW_DISABLE_TELEMETRY=${MLFLOW_DISABLE_TELEMETRY:-true}
# MLflow's jobs run judges of language models; they are not needed here.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}
# Some S3 stores refuse the newer checksums.
export AWS_REQUEST_CHECKSUM_CALCULATION=${AWS_REQUEST_CHECKSUM_CALCULATION:-when_required}
export AWS_RESPONSE_CHECKSUM_VALIDATION=${AWS_RESPONSE_CHECKSUM_VALIDATION:-when_required}
export AWS_DEFAULT_REGION=${AWS_DEFAULT_REGION:-us-east-1}

command=${1:-serve}
(($# == 0)) || shift
need WAIT_SECONDS '[0-9]+' 'a number of seconds'
case $command in
  serve)
    need_database
    need_files
    need_access
    ;;
  upgrade) need_database ;;
  buckets) need_buckets "$@" ;;
  *) problem "expected serve, upgrade or buckets, received command=$command" ;;
esac
stop_if_any
"$command" "$@"

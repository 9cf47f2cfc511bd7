#!/bin/sh
# Installs pinned packages into an image during its build; the Dockerfile calls it.
#
#   install.sh uv              the installer itself, beside this script
#   install.sh packages FILE   the packages of a requirement file, into /opt/cxr
#   install.sh project         this project, without dependencies, into /installed; its files are then copied to /opt/cxr
#
# A build can receive two secret files, which become part of no layer: pip, a pip.conf that names a package index, and
# certificates, the certificate authorities to trust instead of the usual ones.
set -eu

secrets=/run/secrets
build=$(dirname "$0")
uv=$build/uv/bin/uv

# Missing files are no error: a build without secrets uses the public index.
export PIP_CONFIG_FILE=$secrets/pip
if [ -s $secrets/certificates ]; then
  export SSL_CERT_FILE=$secrets/certificates PIP_CERT=$secrets/certificates
fi

case $1 in
  uv)
    python -m venv "$build/uv"
    "$build/uv/bin/pip" install --no-cache-dir --disable-pip-version-check --require-hashes -r "$build/uv.txt"
    ;;
  packages)
    [ -e /opt/cxr/bin/python ] || "$uv" venv --quiet --allow-existing /opt/cxr
    UV_DEFAULT_INDEX=$("$build/uv/bin/pip" config get global.index-url 2>/dev/null || echo https://pypi.org/simple)
    export UV_DEFAULT_INDEX
    # Modules are compiled now, because the folder is read-only later.
    UV_CACHE_DIR=/tmp/cache/uv UV_LINK_MODE=copy "$uv" pip install --python /opt/cxr --compile-bytecode \
      --require-hashes -r "/tmp/requirements/$2"
    # 430 MB of headers, needed only to compile TensorFlow operations.
    rm -rf /opt/cxr/lib/python*/site-packages/tensorflow/include
    ;;
  project)
    "$uv" pip install --python /opt/cxr/bin/python --prefix /installed --no-cache --offline --no-deps \
      --no-build-isolation --compile-bytecode /project
    ;;
esac
rm -f /opt/cxr/.lock /installed/.lock

#!/bin/sh
# Fills /opt/tailrace, a virtual environment: `install.sh packages`, then `install.sh tailrace`.
#
# Packages come from `outside/`, where wheels lie that were brought there before, else from the network; both are held
# to the versions and hashes of requirements.lock.
set -eu
here=$(dirname "$0")
python=$(command -v python3.11)
uv_version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)

if [ ! -e /opt/uv ]; then
    mkdir /opt/uv
    if [ -d "$here/outside" ]; then
        "$python" -m zipfile -e "$here/outside/uv-$uv_version"-*.whl /opt/uv
    else
        "$python" -m pip install --quiet --root-user-action=ignore --target /opt/uv "uv==$uv_version"
    fi
    find /opt/uv -name uv -type f -exec cp {} /opt/uv/uv-program \;
    chmod +x /opt/uv/uv-program
    /opt/uv/uv-program venv --quiet --python "$python" /opt/tailrace
fi

install() {
    [ ! -d "$here/outside" ] || set -- --no-index --find-links "$here/outside" "$@"
    /opt/uv/uv-program pip install --quiet --no-cache --compile-bytecode --python /opt/tailrace/bin/python "$@"
}

case $1 in
packages) install --constraint requirements.lock --requirement pyproject.toml ;;
tailrace) install --build-constraint requirements.lock --no-deps . ;;
esac

#!/bin/sh
# Makes the base image of our images from Debian's packages, for machines that cannot pull one; prints its name.
#
#     deploy/base-image.sh
#
# It is made once: its name holds a hash of what is in it. Needs docker, and mmdebstrap or debootstrap, as root.
set -eu

SUITE=bookworm
# Python's standard library; what wheels expect of a system (libstdc++6); certificates and time zones.
PACKAGES=python3.11,libstdc++6,ca-certificates,tzdata

name="tailrace-base:$SUITE-$(sha256sum "$0" | cut -c1-12)"
if docker image inspect "$name" >/dev/null 2>&1; then
    echo "$name"
    exit
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if command -v mmdebstrap >/dev/null; then
    mmdebstrap --quiet --mode=root --variant=essential --include="$PACKAGES" \
        --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$SUITE" "$folder/base.tar" >&2
elif command -v debootstrap >/dev/null; then
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$folder/root" >&2
    rm -rf "$folder/root/var/cache/apt" "$folder/root/var/lib/apt/lists" "$folder/root/usr/share/doc"
    tar -C "$folder/root" -cf "$folder/base.tar" .
else
    echo "error: no base image can be pulled, and there is no mmdebstrap to make one: apt-get install mmdebstrap" >&2
    exit 1
fi
docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
    "$folder/base.tar" "$name" >&2
echo "$name"

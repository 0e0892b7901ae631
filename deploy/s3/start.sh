#!/bin/sh
# Starts the S3 server with the bucket BUCKET, which is made when there is none.
set -eu
: "${ROOT_ACCESS_KEY:?}" "${ROOT_SECRET_KEY:?}" "${BUCKET:=tailrace}"
mkdir -p "/var/lib/s3/buckets/$BUCKET" /var/lib/s3/sidecar
exec s3-server --listen :7070 --buckets /var/lib/s3/buckets --sidecar /var/lib/s3/sidecar

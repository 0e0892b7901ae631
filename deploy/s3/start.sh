#!/bin/sh
# Starts the S3 server with the bucket BUCKET, which is made when there is none.
set -eu
: "${ROOT_ACCESS_KEY:?}" "${ROOT_SECRET_KEY:?}" "${BUCKET:=tailrace}"
mkdir -p "/var/lib/s3/buckets/$BUCKET" /var/lib/s3/sidecar
exec versitygw --port :7070 --health /health --quiet posix --sidecar /var/lib/s3/sidecar /var/lib/s3/buckets

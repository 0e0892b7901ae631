// Command s3-server serves a folder over S3, with conditional puts: versitygw over its posix backend. Of versitygw's
// own command it leaves out the other backends, its tests and its flags, because they take most of the time to build.
//
// The account comes from ROOT_ACCESS_KEY and ROOT_SECRET_KEY. A bucket is a folder in `--buckets`; what S3 knows of an
// object beside its bytes is kept in `--sidecar`. `/health` answers 200.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	address := flag.String("listen", "127.0.0.1:7070", "`host:port` to listen on")
	buckets := flag.String("buckets", "", "`folder` whose folders are the buckets")
	sidecar := flag.String("sidecar", "", "`folder` for the objects' metadata, outside of the buckets'")
	flag.Parse()
	if *buckets == "" || *sidecar == "" {
		log.Fatal("name the folders: --buckets FOLDER --sidecar FOLDER")
	}
	ended, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ended, *address, *buckets, *sidecar); err != nil {
		log.Fatal(err)
	}
}

func serve(ended context.Context, address, buckets, sidecar string) error {
	metadata, err := meta.NewSideCar(sidecar)
	if err != nil {
		return err
	}
	backend, err := posix.New(buckets, metadata, posix.PosixOpts{SideCarDir: sidecar, Concurrency: 5_000})
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ended, backend, &embedgw.Config{
		RootUserAccess:    os.Getenv("ROOT_ACCESS_KEY"),
		RootUserSecret:    os.Getenv("ROOT_SECRET_KEY"),
		Ports:             []string{address},
		HealthPath:        "/health",
		Quiet:             true,
		MaxConnections:    250_000, // this and the rest: versitygw's own defaults
		MaxRequests:       100_000,
		MultipartMaxParts: 10_000,
	})
}

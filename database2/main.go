// Command database2 prints the books of an author, out of PostgreSQL, with a new connection for every call.
//
// DATABASE_URL, in the environment or in the file .env, says where the database is.
package main

import (
	"example.com/penny/database2/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
)

func main() {
	flags := demo.Parse("database2")
	url, err := dburl.Get()
	if err == nil {
		err = run(flags, url)
	}
	flags.Exit(err, url)
}

func run(flags *demo.Flags, url string) error {
	ctx, stop := demo.Context()
	defer stop()

	store, err := books.Open(ctx, url)
	if err != nil {
		return err
	}
	defer store.Close()

	found, err := flags.Ask(ctx, store)
	if err != nil {
		return err
	}
	flags.Print(found)
	return flags.Time(ctx, store)
}

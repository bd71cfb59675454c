// Command database3 prints the books of an author, out of PostgreSQL, with connections from a pool.
//
// DATABASE_URL, in the environment or in the file .env, says where the database is.
package main

import (
	"example.com/penny/database3/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
)

func main() {
	flags := demo.ParsePool("database3", 8)
	url, err := dburl.Get()
	if err == nil {
		err = run(flags, url)
	}
	flags.Exit(err, url)
}

func run(flags *demo.Flags, url string) error {
	ctx, stop := demo.Context()
	defer stop()

	store, err := books.OpenPool(ctx, url, flags.Pool)
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

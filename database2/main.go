// Command database2 prints the books of an author from PostgreSQL, over a new connection for every call.
//
// DATABASE_URL, in the environment or in the file .env, is the address of the database.
package main

import (
	"example.com/penny/database2/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
)

func main() {
	flags := demo.Parse("database2", 0)
	url, err := dburl.Get(dburl.PQ)
	if err == nil {
		err = run(flags, url)
	}
	flags.Exit(err, url)
}

func run(flags *demo.Flags, url string) error {
	ctx, stop := demo.Context()
	defer stop()

	store, err := books.Open(url)
	if err != nil {
		return err
	}
	defer store.Close()

	found, err := flags.Ask(ctx, store.ByAuthor)
	if err != nil {
		return err
	}
	flags.Print(found)
	return flags.Time(ctx, store.ByAuthor, func() int64 { return demo.Opened(store.Stats()) })
}

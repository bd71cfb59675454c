// Command database4 prints the books of an author from PostgreSQL or SQLite, through an object-relational mapper.
//
// DATABASE_URL, in the environment or in the file .env, is the address of the database.
package main

import (
	"example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
)

func main() {
	flags := demo.Parse("database4", 8)
	url, err := dburl.Get(dburl.GORM)
	if err == nil {
		err = run(flags, url)
	}
	flags.Exit(err, url)
}

func run(flags *demo.Flags, url string) error {
	ctx, stop := demo.Context()
	defer stop()

	store, err := books.Open(url, flags.Pool)
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

// Command database1 prints the books of an author from a SQLite file.
//
// It needs nothing but Go: if penny.sqlite is missing in the current folder, it makes the file.
package main

import (
	"example.com/penny/database1/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/demo"
)

const file = "penny.sqlite"

func main() {
	flags := demo.Parse("database1", 0)
	url, err := dburl.SQLite("sqlite:///" + file)
	if err == nil {
		err = run(flags, url)
	}
	flags.Exit(err, url)
}

func run(flags *demo.Flags, url string) error {
	ctx, stop := demo.Context()
	defer stop()

	if err := books.Create(file); err != nil {
		return err
	}
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

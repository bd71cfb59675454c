// Command database1 prints the books of an author, out of a SQLite file.
//
// The first of four programs that do the same, it needs nothing but Go: where there is no penny.sqlite in the current
// folder, it makes one.
package main

import (
	"example.com/penny/database1/books"
	"example.com/penny/internal/demo"
)

// url is the file penny.sqlite in the current folder, written as DATABASE_URL writes it.
const url = "sqlite:///penny.sqlite"

func main() {
	flags := demo.Parse("database1")
	flags.Exit(run(flags), url)
}

func run(flags *demo.Flags) error {
	ctx, stop := demo.Context()
	defer stop()
	if err := books.Create(ctx, url); err != nil {
		return err
	}

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

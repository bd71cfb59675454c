package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/explain"
)

const resetAbout = `Puts back what a lecture changes: the three books in penny.sqlite and, if it is set, in DATABASE_URL, and no progress in the
exercises. It asks before it drops other books. Your files stay as they are: git checkout . puts them back.`

func runReset(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "reset", resetAbout)
	yes := f.Bool("yes", false, "drop other books without asking")
	if err := parse(f, args); err != nil {
		return err
	}
	folder, err := root()
	if err != nil {
		return err
	}
	addresses := []string{"sqlite:///" + filepath.ToSlash(filepath.Join(folder, "penny.sqlite"))}
	if address, err := dburl.Get(dburl.Clean); err == nil && address != addresses[0] {
		addresses = append(addresses, address)
	} else {
		fmt.Fprintln(env.stdout, "There is no DATABASE_URL, so no server was changed.")
	}
	for _, address := range addresses {
		fmt.Fprintf(env.stdout, "%s: ", explain.Place(address))
		if err := fillAt(ctx, env, address, 0, false, *yes); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(folder, ".exercises")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Fprintln(env.stdout, "No exercise is solved.")
	return nil
}

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

const resetAbout = `Puts back what a lecture changes: it forgets which exercises are solved, and loads the three books into penny.sqlite and, if
it is set, DATABASE_URL. It asks before it drops other books. It does not change your code; git checkout . puts that back.`

func runReset(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "reset", resetAbout)
	yes := f.Bool("yes", false, "drop other books without asking")
	if err := parse(f, args); err != nil {
		return err
	}
	folder, err := root(ctx)
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(folder, ".exercises")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &hinted{err, "delete that file yourself"}
	}
	fmt.Fprintln(env.stdout, "No exercise is solved.")
	addresses := []string{"sqlite:///" + filepath.ToSlash(filepath.Join(folder, "penny.sqlite"))}
	switch address, _, err := env.lookup(); {
	case errors.Is(err, dburl.NotSet):
		fmt.Fprintln(env.stdout, "DATABASE_URL is not set, so no server is changed.")
	case err != nil:
		return err
	case address != addresses[0]:
		addresses = append(addresses, address)
	}
	for _, address := range addresses {
		fmt.Fprintf(env.stdout, "%s: ", explain.Place(address))
		if err := load(ctx, env, address, 0, false, *yes); err != nil {
			return err
		}
	}
	return nil
}

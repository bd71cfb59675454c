package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pitfall"
)

func runBreak(ctx context.Context, env *environment, args []string) error {
	about := "Shows a pitfall of the lecture on a real server of its own, beside what prevents it, in less than 20 seconds. NAME is one of:\n\n"
	for _, p := range pitfall.All {
		about += fmt.Sprintf("  %-18s  %s\n", p.Name, p.About)
	}
	f := flags(env, "break", strings.TrimRight(about, "\n"))
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		if err := parse(f, args); err != nil {
			return err
		}
		return wrong(f, "which pitfall?")
	}
	for _, p := range pitfall.All {
		if p.Name != args[0] {
			continue
		}
		bin, err := findPostgres(ctx, env, localpg.Search{})
		if err != nil {
			return err
		}
		err = p.Show(ctx, env.stdout, bin)
		if errors.Is(err, pitfall.ErrNoBouncer) {
			return &hinted{err, "sudo apt install pgbouncer, or brew install pgbouncer"}
		}
		return err
	}
	return wrong(f, "there is no pitfall %q", args[0])
}

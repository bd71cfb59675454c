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
	about := "Starts a real server and shows a pitfall of the lecture next to what prevents it, in less than 20 seconds. NAME is one of:\n\n"
	for _, p := range pitfall.All {
		about += fmt.Sprintf("  %-18s  %s\n", p.Name, p.About)
	}
	f := flags(env, "break NAME", strings.TrimRight(about, "\n"))
	name, err := parseName(f, args, "which pitfall?")
	if err != nil {
		return err
	}
	for _, p := range pitfall.All {
		if p.Name != name {
			continue
		}
		server, err := startServer(ctx, env, localpg.Search{}, localpg.Options{Config: map[string]string{"max_connections": pitfall.Places}})
		if err != nil {
			return err
		}
		defer server.Stop()
		if _, err := loadIfMissing(ctx, server.URL("postgres")); err != nil {
			return err
		}
		err = p.Show(ctx, env.stdout, server)
		if errors.Is(err, pitfall.ErrNoBouncer) {
			return &hinted{err, "sudo apt install pgbouncer, or brew install pgbouncer"}
		}
		return err
	}
	return wrong(f, "there is no pitfall %q", name)
}

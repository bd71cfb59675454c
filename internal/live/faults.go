package live

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/internal/localpg"
	"example.com/penny/internal/race"
)

// Faults returns what can be done to a server that nobody else uses.
func Faults(server *localpg.Server) []race.Fault {
	address := server.URL("postgres")
	return []race.Fault{
		{Name: "kill the connections", Do: func(ctx context.Context) (func(), error) { return nil, kill(ctx, address) }},
		{Name: "restart the server", Do: func(ctx context.Context) (func(), error) { return nil, server.Restart(ctx, localpg.Fast) }},
		{Name: "fill the server", Do: func(ctx context.Context) (func(), error) { return fill(ctx, address), nil }},
	}
}

// kill ends every connection to the server but its own and the one that watches.
func kill(ctx context.Context, address string) error {
	conn, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> $1`, race.Watcher)
	return err
}

// fill takes every place of the server that is or becomes free, until free is called.
func fill(ctx context.Context, address string) (free func()) {
	ctx, cancel := context.WithCancel(ctx)
	var filling sync.WaitGroup
	filling.Go(func() {
		for ctx.Err() == nil {
			if conn, err := connect(ctx, address); err == nil {
				defer conn.Close(context.Background())
			}
		}
	})
	return func() {
		cancel()
		filling.Wait()
	}
}

// connect waits for a place on a server that is full.
func connect(ctx context.Context, address string) (conn *pgx.Conn, err error) {
	for tick := time.Tick(2 * time.Millisecond); ; <-tick {
		if conn, err = pgx.Connect(ctx, address); err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
}

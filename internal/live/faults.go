package live

import (
	"context"
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

// kill ends every connection to the server but its own and the one that watches. If the server is full, it waits for a place.
func kill(ctx context.Context, address string) error {
	conn, err := pgx.Connect(ctx, address)
	for ; err != nil && ctx.Err() == nil; conn, err = pgx.Connect(ctx, address) {
		pause(ctx)
	}
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
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var conns []*pgx.Conn
		for ctx.Err() == nil {
			conn, err := pgx.Connect(ctx, address)
			if err == nil {
				conns = append(conns, conn)
				continue
			}
			pause(ctx)
		}
		for _, conn := range conns {
			conn.Close(context.Background())
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

func pause(ctx context.Context) {
	select {
	case <-time.After(2 * time.Millisecond):
	case <-ctx.Done():
	}
}

package pool_test

import (
	"context"
	"fmt"

	"example.com/penny/database3/pool"
)

// A program's dial connects to its server: pgx.Connect(ctx, url). This one connects to a fake server.
func Example() {
	dial := (&fakeServer{}).dial
	p := pool.New(8, dial)
	defer p.Close()

	visit := func(ctx context.Context) error {
		conn, err := p.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		_, err = conn.Exec(ctx, "SELECT 1")
		return err
	}
	for range 100 {
		if err := visit(context.Background()); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println("connections opened:", p.Stats().Dials)
	// Output: connections opened: 1
}

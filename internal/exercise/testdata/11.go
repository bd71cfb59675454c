package pool

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny/database3/pool/pooltest"
	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	deadline, _ := t.Deadline()
	ctx, cancel := context.WithDeadline(t.Context(), deadline.Add(-8*time.Second))
	defer cancel()
	exam := &pooltest.Exam{Admin: given.Admin(t), Limit: time.Until(deadline) / 3}
	exam.New = func(url string, max int) (pooltest.Pool, error) {
		p := New(max, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, url) })
		acquire := func(ctx context.Context) (*pgx.Conn, func(), error) {
			conn, err := p.Acquire(ctx)
			if err != nil {
				return nil, nil, err
			}
			return conn.Conn, conn.Release, nil
		}
		return pooltest.Pgx(acquire, func() { p.Close() }), nil
	}
	exam.Run(ctx, func(r pooltest.Result) {
		t.Run(r.Promise, func(t *testing.T) {
			switch {
			case r.Err == nil || errors.Is(r.Err, pooltest.ErrSkipped):
			case r.Err == ctx.Err():
				t.Errorf("%q was not tested, because the promises before it took too long", r.Promise)
			default:
				t.Errorf("%q is not kept; probably %v", r.Promise, r.Err)
			}
		})
	})
}

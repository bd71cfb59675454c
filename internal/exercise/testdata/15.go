package lastcopy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/penny/internal/exercise/given"
)

// Every change of the stock takes a while, so that the customers' sales overlap.
const slow = `;
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;
	CREATE TRIGGER slow BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION slow();
	INSERT INTO stock VALUES ('123', 5)`

func TestExercise(t *testing.T) {
	address := given.Books(t, "")
	given.Exec(t, address, Table+slow)
	db := given.Open(t, address)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var sold, soldOut atomic.Int64
	var customers sync.WaitGroup
	for range 20 {
		customers.Go(func() {
			switch err := Sell(ctx, db, "123"); {
			case err == nil:
				sold.Add(1)
			case errors.Is(err, ErrSoldOut):
				soldOut.Add(1)
			default:
				t.Errorf("Sell fails: %v", err)
			}
		})
	}
	customers.Wait()
	var left int
	if err := db.QueryRow(`SELECT copies FROM stock`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if sold.Load() != 5 || soldOut.Load() != 15 || left != 0 {
		t.Fatalf("20 customers want 5 copies: %d were sold, %d customers got ErrSoldOut, %d copies are left; want 5, 15 and 0",
			sold.Load(), soldOut.Load(), left)
	}
	given.Exec(t, address, `UPDATE stock SET copies = 5`)
	err := given.During(t, address, `UPDATE stock SET copies = copies - 1`, func() error { return Sell(ctx, db, "123") })
	if err != nil {
		t.Fatalf("another copy of the app sells the book at the same moment, and Sell fails: %v", err)
	}
	if err := db.QueryRow(`SELECT copies FROM stock`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 3 {
		t.Fatalf("two copies of the app sold a book each, of 5 copies, and %d are left", left)
	}
	given.Exec(t, address, `UPDATE stock SET copies = 1`)
	err = given.During(t, address, `UPDATE stock SET copies = copies - 1`, func() error { return Sell(ctx, db, "123") })
	if err := db.QueryRow(`SELECT copies FROM stock`).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrSoldOut) || left != 0 {
		t.Fatalf("another copy of the app sells the last book at the same moment: Sell returns %v and %d copies are left, want ErrSoldOut and 0", err, left)
	}
}

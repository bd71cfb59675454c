package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/race"
)

const raceAbout = `Runs the stages side by side with the same question, on the PostgreSQL at DATABASE_URL (database1 on a SQLite file of its
own), and shows how many round trips a call makes and how long it takes. Three controls run too, so that between
neighbours one thing changes. The contenders take turns, so that a busy second is nobody's bad luck.`

// raceFlags are the flags that the race and the page have in common.
type raceFlags struct {
	calls, workers, size *int
	only                 *string
	rtt                  *time.Duration
}

// options returns what the user chose, or the error of wrong usage.
func (r *raceFlags) options(wrong func(format string, args ...any) error) (race.Options, error) {
	chosen, err := race.Choose(*r.only)
	switch {
	case err != nil:
		return race.Options{}, wrong("%v", err)
	case *r.calls < 1 || *r.calls > race.MaxCalls:
		return race.Options{}, wrong("-n must be between 1 and %d", race.MaxCalls)
	case *r.workers < 1 || *r.workers > race.MaxWorkers:
		return race.Options{}, wrong("-c must be between 1 and %d", race.MaxWorkers)
	case *r.size < 1 || *r.size > race.MaxPool:
		return race.Options{}, wrong("-pool must be between 1 and %d", race.MaxPool)
	case *r.rtt < 0 || *r.rtt > race.MaxRTT:
		return race.Options{}, wrong("-rtt must be between 0 and %v", race.MaxRTT)
	}
	return race.Options{Contenders: chosen, Calls: *r.calls, Workers: *r.workers, Pool: *r.size, RTT: *r.rtt}, nil
}

func runRace(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "race", raceAbout)
	chosen := raceFlags{
		calls:   f.Int("n", 300, "make `CALLS` calls with each contender"),
		workers: f.Int("c", 8, "make them from `WORKERS` goroutines at once"),
		size:    f.Int("pool", 8, "let the pools hold `SIZE` connections"),
		only:    f.String("only", "", "race only these `NAMES`, with commas between them: "+race.Names()),
		rtt:     f.Duration("rtt", 0, "put a `DELAY` such as 30ms between the program and the server, for there and back"),
	}
	svg := f.String("svg", "", "draw the chart into `FILE` too")
	asJSON := f.Bool("json", false, "print the result as JSON")
	if err := parse(f, args); err != nil {
		return err
	}
	options, err := chosen.options(func(format string, args ...any) error { return wrong(f, format, args...) })
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(options.Contenders, func(c race.Contender) bool { return !c.Local }) {
		options.RTT = 0
	} else if options.Address, err = postgresAddress(); err != nil {
		return err
	}
	chart, err := newChart(*svg)
	if err != nil {
		return err
	}
	defer finishChart(chart, nil)
	if few := 20 * options.Workers; options.Calls < few {
		fmt.Fprintf(env.stderr, "lab race: with fewer than %d calls the times move a lot from run to run; the round trips do not\n", few)
	}
	bar := progress(env, int64(options.Calls*len(options.Contenders)), "race")
	options.Progress = func(done int) { _ = bar.Set(done) }
	result, raced := race.Run(ctx, options)
	_ = bar.Finish()
	if raced != nil && (ctx.Err() == nil || len(result.Entrants) == 0) {
		if errors.Is(raced, race.ErrSeveralHosts) {
			return &hinted{raced, "leave -rtt out, or name one host"}
		}
		return raced
	}
	if *asJSON {
		encoder := json.NewEncoder(env.stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(result)
	} else {
		err = result.Print(env.stdout)
	}
	if err != nil {
		return &hinted{fmt.Errorf("print the result: %w", err), "what reads it must read to the end"}
	}
	if err := finishChart(chart, result.Chart); err != nil {
		return &hinted{fmt.Errorf("write a chart: %w", err), "choose another file"}
	}
	return raced
}

// postgresAddress returns DATABASE_URL as dburl.Clean returns it, if it is a PostgreSQL's.
func postgresAddress() (string, error) {
	return dburl.Get(func(address string) (string, error) {
		if _, err := dburl.PGX(address); err != nil {
			return "", err
		}
		return dburl.Clean(address)
	})
}

// newChart opens the file of a chart before the run, so that a file that cannot be written is found then. It leaves what the
// file has, and returns nil for no name.
func newChart(name string) (*os.File, error) {
	if name == "" {
		return nil, nil
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, &hinted{fmt.Errorf("write a chart: %w", err), "choose a file in a folder that you may write to"}
	}
	return file, nil
}

// finishChart draws the chart, unless draw is nil, and closes its file. A file that stays empty is removed.
func finishChart(file *os.File, draw func(io.Writer) error) error {
	if file == nil {
		return nil
	}
	if draw != nil {
		return errors.Join(file.Truncate(0), draw(file), file.Close())
	}
	if info, err := file.Stat(); err == nil { // it is not closed yet
		file.Close()
		if info.Size() == 0 {
			os.Remove(file.Name())
		}
	}
	return nil
}

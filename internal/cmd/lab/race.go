package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"example.com/penny/internal/dburl"
	"example.com/penny/internal/race"
)

const raceAbout = `Runs the stages side by side with the same question, on the PostgreSQL at DATABASE_URL (database1 on a SQLite file of its
own), and shows how many round trips a call makes and how long it takes. Three controls run too: each is a
stage with one thing changed. The contenders take turns, so that a busy second of the computer slows all of them.`

// raceFlags adds the flags that the race and the page have in common, with o as their defaults. After the command line is
// parsed, check reports wrong usage: no number may be larger than in most.
func raceFlags(f *flag.FlagSet, o *race.Options, only string, most race.Options) (check func() error) {
	f.IntVar(&o.Calls, "n", o.Calls, "make `CALLS` calls with each contender")
	f.IntVar(&o.Workers, "c", o.Workers, "let this many `CALLERS` make them at once")
	f.IntVar(&o.Pool, "pool", o.Pool, "let the pools hold `SIZE` connections")
	f.DurationVar(&o.RTT, "rtt", o.RTT, "add a `DELAY` such as 30ms to each round trip to the server")
	f.StringVar(&only, "only", only, "take only these `NAMES`, with commas between them: "+race.Names())
	return func() (err error) {
		for _, number := range []struct {
			flag       string
			is, atMost int
		}{{"n", o.Calls, most.Calls}, {"c", o.Workers, most.Workers}, {"pool", o.Pool, most.Pool}} {
			if number.is < 1 || number.is > number.atMost {
				return wrong(f, "-%s must be between 1 and %d", number.flag, number.atMost)
			}
		}
		if o.RTT < 0 || o.RTT > most.RTT {
			return wrong(f, "-rtt must be between 0 and %v", most.RTT)
		}
		if o.Contenders, err = race.Choose(only); err != nil {
			return wrong(f, "%v", err)
		}
		return nil
	}
}

func runRace(ctx context.Context, env *environment, args []string) error {
	f := flags(env, "race", raceAbout)
	options := race.Options{Calls: 300, Workers: 8, Pool: 8}
	// pgxpool takes an int32, and a computer has only so much memory.
	check := raceFlags(f, &options, "", race.Options{Calls: 10_000_000, Workers: 10_000, Pool: 10_000, RTT: 10 * time.Second})
	asJSON := f.Bool("json", false, "print the result as JSON")
	if err := parse(f, args); err != nil {
		return err
	}
	if err := check(); err != nil {
		return err
	}
	var err error
	if !slices.ContainsFunc(options.Contenders, func(c race.Contender) bool { return !c.Local }) {
		options.RTT = 0
	} else if options.Address, err = postgresAddress(env); err != nil {
		return err
	}
	if few := 20 * options.Workers; options.Calls < few {
		fmt.Fprintf(env.stderr, "lab race: with fewer than %d calls the times vary a lot from run to run; the round trips do not\n", few)
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
	if err != nil { // a full disk, say, is no fault of the database
		return &hinted{fmt.Errorf("print the result: %w", err), "print it somewhere else"}
	}
	return raced
}

// postgresAddress returns DATABASE_URL if PostgreSQL is there.
func postgresAddress(env *environment) (string, error) {
	address, _, err := env.lookup()
	if err == nil {
		_, err = dburl.PGX(address)
	}
	return address, err
}

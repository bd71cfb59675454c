package outgrow

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
)

// TestStandby runs every layer on a server and the standby that follows it. The last part ends the server.
func TestStandby(t *testing.T) {
	long(t)
	t.Parallel()
	primary := pgtest.Server(t, localpg.Options{Config: map[string]string{
		"log_statement": "all", "log_line_prefix": "%a ",
		"synchronous_standby_names": "*", "synchronous_commit": "local", // a session may wait for the standby
	}})
	pgtest.LoadBooks(t, primary.URL("postgres"))
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	// at is the address of servers, for a program of the given name.
	at := func(program, wants string, servers ...*localpg.Server) string {
		u, err := url.Parse(primary.URL("postgres"))
		if err != nil {
			t.Fatal("the address does not parse")
		}
		var hosts []string
		for _, server := range servers {
			hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", server.Port()))
		}
		u.Host = strings.Join(hosts, ",")
		return u.String() + "&load_balance_hosts=random&application_name=" + program + "&target_session_attrs=" + wants
	}
	// count returns how many of a program's messages in the server's log have a text.
	count := func(server *localpg.Server, program, text string) (n int) {
		for line := range strings.Lines(strings.ReplaceAll(server.Log(), "\n\t", " ")) {
			if strings.HasPrefix(line, program+" ") && strings.Contains(line, text) {
				n++
			}
		}
		return n
	}

	t.Run("every layer asks the server that the address wants", func(t *testing.T) {
		var all sync.WaitGroup
		for wants, right := range map[string]*localpg.Server{"any": nil, "read-write": primary, "primary": primary,
			"read-only": standby, "standby": standby, "prefer-standby": standby} {
			for name := range layers {
				program := name + "-" + wants
				s := open(t, name, at(program, wants, primary, standby))
				all.Go(func() {
					if r := calls(t.Context(), s, 4); r.Failed() > 0 {
						t.Errorf("%s: %v", program, r.Err)
					}
					for _, server := range []*localpg.Server{primary, standby} {
						if asked := count(server, program, "author ILIKE"); right != nil && (asked > 0) != (server == right) {
							t.Errorf("%s: the server at port %d got %d questions, want them at port %d", program, server.Port(), asked, right.Port())
						}
					}
				})
				if right == nil || wants == "prefer-standby" {
					continue
				}
				wrong, cause := primary, "no standby"
				if right == primary {
					wrong, cause = standby, "no primary"
				}
				lost := open(t, name, at(program, wants, wrong))
				all.Go(func() {
					// database3 tries again until the time is over, which a busy machine may need for the first try.
					err := context.DeadlineExceeded
					for limit := time.Second; explain.Name(err) == "no answer" && limit < time.Minute; limit *= 2 {
						_, err = retry.Within(t.Context(), limit, func(ctx context.Context) ([]penny.Book, error) {
							return lost.ByAuthor(ctx, "nobody", 10)
						})
					}
					if err == nil || explain.Name(err) != cause {
						t.Errorf("%s, with only the other server: got %v with the cause %q, want %q", program, err, explain.Name(err), cause)
					}
				})
			}
		}
		all.Wait()
	})

	t.Run("a standby shows a write after a while, and at once if the write waits for it", func(t *testing.T) {
		writes := 10
		if *record {
			writes = 500
		}
		report := fmt.Sprintf("%-24s%-14s%20s%14s%18s\n", "synchronous_commit", "", "read too early", "seen within", "a write, median")
		for _, commit := range []string{"local", "remote_apply"} {
			conn, err := pgx.Connect(t.Context(), primary.URL("postgres")+"&synchronous_commit="+commit)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			for _, name := range slices.Sorted(maps.Keys(layers)) {
				program := name + "-" + commit
				s := open(t, name, at(program, "prefer-standby", primary, standby))
				var write, seen []time.Duration
				stale := 0
				for i := range writes {
					author := fmt.Sprintf("%s %d,", program, i)
					begin := time.Now()
					if _, err := conn.Exec(t.Context(), "INSERT INTO books VALUES ($1, $1, 'New')", author); err != nil {
						t.Fatal(err)
					}
					written := time.Now()
					write = append(write, written.Sub(begin))
					reads := 0
					for found := 0; found == 0; reads++ {
						books, err := s.ByAuthor(t.Context(), author, 10)
						if err != nil || time.Since(written) > time.Minute {
							t.Fatalf("%s has not seen a write after %v: %v", name, time.Since(written), err)
						}
						found = len(books)
					}
					seen = append(seen, time.Since(written))
					if reads > 1 {
						stale++
					}
				}
				if asked := count(primary, program, "author ILIKE"); asked > 0 || count(standby, program, "author ILIKE") == 0 {
					t.Errorf("%s asked the primary %d times, want 0, and the standby", name, asked)
				}
				if commit == "remote_apply" && stale > 0 {
					t.Errorf("%s did not see %d of %d writes at once, though the writes waited for the standby", name, stale, writes)
				}
				slices.Sort(write)
				report += fmt.Sprintf("%-24s%-14s%13d of %3d%14s%18s\n", commit, name, stale, writes,
					load.Milliseconds(slices.Max(seen)), load.Milliseconds(write[writes/2]))
			}
		}
		t.Log("\n" + report)
		writeRecord(t, "standby.txt", "-run TestStandby", report)
	})

	t.Run("a promoted standby costs database3 no read", func(t *testing.T) {
		s := open(t, "database3", at("survivor", "read-write", primary, standby))
		if before := calls(t.Context(), s, 20); before.Failed() > 0 {
			t.Fatal(before.Err)
		}
		primary.Halt(localpg.Immediate)
		result := make(chan load.Result)
		go func() { result <- calls(t.Context(), s, 100) }()
		pgtest.Eventually(t, time.Minute, "a read finds no server that takes writes", func() bool {
			return count(standby, "survivor", "transaction_read_only") > 0
		})
		if err := standby.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := <-result; r.Failed() > 0 {
			t.Errorf("%s of %d calls failed: %v", r.ErrorCounts(), r.Calls, r.Err)
		}
		// The others may lose the calls that were on their way, and then find the new server by the same address.
		for name := range layers {
			if after := calls(t.Context(), open(t, name, at("later", "read-write", primary, standby)), 20); after.Failed() > 0 {
				t.Errorf("%s, after the failover: %v", name, after.Err)
			}
		}
	})
}

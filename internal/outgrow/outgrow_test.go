// Package outgrow proves what the lecture says of outgrowing one machine: with a real PgBouncer in between, and with a
// server that dies and its standby that takes over.
package outgrow

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/penny"
	database2 "example.com/penny/database2/books"
	database3 "example.com/penny/database3/books"
	database4 "example.com/penny/database4/books"
	"example.com/penny/internal/dburl"
	"example.com/penny/internal/explain"
	"example.com/penny/internal/load"
	"example.com/penny/internal/localpg"
	"example.com/penny/internal/pgtest"
	"example.com/penny/internal/retry"
	"example.com/penny/internal/skip"
)

var record = flag.Bool("record", false, "write what TestCluster and TestBooksOnThreeServers measured to docs/race")

// A layer is a stage, and the form of address that its driver takes.
type layer struct {
	form func(address string) (string, error)
	open func(url string) (penny.Store, error)
}

var layers = map[string]layer{
	"database2": {dburl.PQ, func(url string) (penny.Store, error) { return database2.Open(url) }},
	"database3": {dburl.PGX, func(url string) (penny.Store, error) { return database3.Open(url, 8) }},
	"database4": {dburl.GORM, func(url string) (penny.Store, error) { return database4.Open(url, 8) }},
}

// open opens a layer on the database at address. The test closes it.
func open(t *testing.T, name, address string) penny.Store {
	t.Helper()
	url, err := layers[name].form(address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := layers[name].open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// calls makes n calls with ten workers.
func calls(ctx context.Context, s penny.Store, n int) load.Result {
	return load.Run(ctx, load.Options{Calls: n, Workers: 10, Name: explain.Name}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		var books []penny.Book
		err := retry.Read(ctx, func() (err error) {
			books, err = s.ByAuthor(ctx, "ker", 10)
			return err
		})
		if err == nil && len(books) != 2 {
			err = fmt.Errorf("found %d books", len(books))
		}
		return err
	})
}

func TestEveryLayerWorksThroughPgBouncerWithItsDriversSettingAndNotWithout(t *testing.T) {
	t.Parallel()
	address := pooled(t, pgtest.BooksURL(t))
	for name := range layers {
		t.Run(name, func(t *testing.T) {
			s := open(t, name, address+"&default_query_exec_mode=exec&binary_parameters=yes")
			if result := calls(t.Context(), s, 100); result.Failed() > 0 {
				t.Errorf("%s of %d calls failed: %v", result.ErrorCounts(), result.Calls, result.Err)
			}
		})
		t.Run(name+" without the setting", func(t *testing.T) {
			result := calls(t.Context(), open(t, name, address), 300)
			t.Logf("%d of %d calls failed", result.Failed(), result.Calls)
			if result.Failed() == 0 {
				if name == "database3" { // the others fail now and then
					t.Error("no call failed")
				}
				return
			}
			if cause := explain.Find(result.Err); cause == nil || cause.Name != "pooler in between" || !strings.Contains(cause.Hint, "default_query_exec_mode=exec") {
				t.Errorf("%v is explained as %v", result.Err, cause)
			}
		})
	}
}

// pooled starts a PgBouncer in transaction mode in front of the server at address, and returns its address.
func pooled(t *testing.T, address string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	if err != nil {
		skip.Test(t, "there is no PgBouncer here: sudo apt install pgbouncer")
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	password, _ := u.User.Password()
	port, err := localpg.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	folder := pgtest.Folder(t)
	ini, users := filepath.Join(folder, "pgbouncer.ini"), filepath.Join(folder, "users.txt")
	write := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(users, fmt.Sprintf("%q %q\n", u.User.Username(), password))
	write(ini, fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
default_pool_size = 5
ignore_startup_parameters = extra_float_digits
`, u.Hostname(), u.Port(), port, users))
	var said bytes.Buffer
	cmd := exec.Command(program, ini)
	cmd.Stderr = &said
	cmd.Dir = folder
	if os.Getuid() == 0 { // it refuses to run as root
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		for _, path := range []string{folder, ini, users} {
			if err := os.Chown(path, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
		asUser(cmd, uid, gid)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Log(strings.ReplaceAll(said.String(), password, "*****"))
		}
	})
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	pgtest.Eventually(t, 20*time.Second, "PgBouncer answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, u.String()+"&default_query_exec_mode=exec")
		if err != nil {
			return false
		}
		conn.Close(ctx)
		return true
	})
	return u.String()
}

func TestAPromotedStandbyCostsDatabase3NoCall(t *testing.T) {
	t.Parallel()
	primary := pgtest.Server(t, localpg.Options{})
	pgtest.LoadBooks(t, primary.URL("postgres"))
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	u, err := url.Parse(primary.URL("postgres"))
	if err != nil {
		t.Fatal("the address does not parse")
	}
	u.Host = fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", primary.Port(), standby.Port())
	s := open(t, "database3", u.String()+"&target_session_attrs=read-write")
	if before := calls(t.Context(), s, 50); before.Failed() > 0 {
		t.Fatal(before.Err)
	}
	result := make(chan load.Result)
	go func() { result <- calls(t.Context(), s, 3000) }()
	primary.Halt(localpg.Immediate)
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := <-result; r.Failed() > 0 {
		t.Errorf("%s of %d calls failed: %v", r.ErrorCounts(), r.Calls, r.Err)
	}
	// The others may lose the calls that were in the air, and then find the new server by the same address.
	for name := range layers {
		s := open(t, name, u.String()+"&target_session_attrs=read-write")
		if after := calls(t.Context(), s, 50); after.Failed() > 0 {
			t.Errorf("%s, after the failover: %v", name, after.Err)
		}
	}
}

func TestWhatAPoolerRefusesIsToldAsWhatItIs(t *testing.T) {
	good := pooled(t, pgtest.BooksURL(t))
	u, err := url.Parse(good)
	if err != nil {
		t.Fatal("the address does not parse")
	}
	user := u.User.Username()
	for _, c := range []struct {
		cause  string
		change func(*url.URL)
	}{
		{"wrong password", func(u *url.URL) { u.User = url.UserPassword(user, "hunter2!") }},
		{"wrong password", func(u *url.URL) { u.User = url.UserPassword("nobody", "hunter2!") }},
		{"unknown database", func(u *url.URL) { u.Path = "/nowhere" }},
		{"unknown setting", func(u *url.URL) { u.RawQuery += "&statement_timeout=1000" }},
	} {
		for name := range layers {
			wrong := *u
			c.change(&wrong)
			if wrong.Path == "/nowhere" { // each layer another: PgBouncer refuses a database at once only for the first time
				wrong.Path += name
			}
			t.Setenv(dburl.Variable, wrong.String())
			s := open(t, name, wrong.String())
			if _, err := s.ByAuthor(t.Context(), "ker", 10); err == nil || explain.Name(err) != c.cause {
				says, _ := explain.Error(err, wrong.String())
				t.Errorf("%s tells the cause %q as %q: %s", name, c.cause, explain.Name(err), says)
			}
		}
	}
}

func TestEveryLayerAsksTheServerThatTheAddressWants(t *testing.T) {
	t.Parallel()
	primary := pgtest.Server(t, localpg.Options{Config: map[string]string{"log_statement": "all"}})
	pgtest.LoadBooks(t, primary.URL("postgres"))
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	pgtest.Eventually(t, time.Minute, "the standby has the books", func() bool {
		conn, err := pgx.Connect(t.Context(), standby.URL("postgres"))
		if err != nil {
			return false
		}
		defer conn.Close(t.Context())
		_, err = conn.Exec(t.Context(), "SELECT FROM books")
		return err == nil
	})
	at := func(servers ...*localpg.Server) string {
		u, err := url.Parse(primary.URL("postgres"))
		if err != nil {
			t.Fatal("the address does not parse")
		}
		var hosts []string
		for _, server := range servers {
			hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", server.Port()))
		}
		u.Host = strings.Join(hosts, ",")
		return u.String() + "&load_balance_hosts=random&target_session_attrs="
	}
	questions := func(server *localpg.Server) int { return strings.Count(server.Log(), "author ILIKE") }
	for wants, right := range map[string]*localpg.Server{"any": nil, "read-write": primary, "primary": primary,
		"read-only": standby, "standby": standby, "prefer-standby": standby} {
		for name := range layers {
			before := map[*localpg.Server]int{primary: questions(primary), standby: questions(standby)}
			if r := calls(t.Context(), open(t, name, at(primary, standby)+wants), 10); r.Failed() > 0 {
				t.Errorf("%s, %s: %v", name, wants, r.Err)
			}
			for server, count := range before {
				if asked := questions(server) - count; right != nil && (asked > 0) != (server == right) {
					t.Errorf("%s, %s: the server at port %d got %d questions, and the right one is at %d", name, wants, server.Port(), asked, right.Port())
				}
			}
			if right == nil || wants == "prefer-standby" {
				continue
			}
			wrong := primary
			if right == primary {
				wrong = standby
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := open(t, name, at(wrong)+wants).ByAuthor(ctx, "ker", 10)
			if got := explain.Name(err); err == nil || got != "no primary" {
				t.Errorf("%s, %s, with the other server alone: %v, named %q", name, wants, err, got)
			}
		}
	}
}

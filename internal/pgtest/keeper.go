package pgtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"example.com/penny"
	"example.com/penny/internal/localpg"
)

// The server belongs to a keeper: a process that the first test process starts, out of its own program, and that goes on
// when go test has ended that one. Each test process holds a connection to the keeper for as long as it lives, so the
// keeper knows when the last has gone, by whatever end, and stops the server a moment later.

const (
	// keeperVariable in the environment makes a test program a keeper.
	keeperVariable = "PENNY_PGTEST_KEEPER"
	// linger is how long a server waits for another test process before it goes.
	linger = 3 * time.Second
)

func init() {
	if os.Getenv(keeperVariable) == "" {
		return
	}
	if err := keep(); err != nil {
		fmt.Printf("error %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	os.Exit(0)
}

// note is the file in which a keeper leaves its address, for this user alone: who holds the address gets the server's
// password.
func note() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("penny-pgtest-%d", os.Getuid()))
}

// join asks the keeper that is there for the server's address, or starts one.
func join() (string, error) {
	if place, err := os.ReadFile(note()); err == nil {
		if address, err := hold(string(place)); err == nil {
			return address, nil
		}
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	keeper := exec.Command(program)
	keeper.Env = append(os.Environ(), keeperVariable+"=1")
	keeper.Dir = os.TempDir()
	// The keeper says its address on a pipe that only it and this process hold. It must not hold this process's own
	// output: go test waits until nobody does.
	out, err := keeper.StdoutPipe()
	if err != nil {
		return "", err
	}
	detach(keeper)
	if err := keeper.Start(); err != nil {
		return "", fmt.Errorf("start the tests' PostgreSQL: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("start the tests' PostgreSQL: its keeper said nothing: %w", err)
	}
	place, found := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !found {
		return "", fmt.Errorf("start the tests' PostgreSQL: %s", strings.TrimSpace(line))
	}
	return hold(place)
}

// held keeps the connection to the keeper open until this process ends.
var held []net.Conn

// hold holds the keeper at place, which is its address and a secret.
func hold(place string) (string, error) {
	address, secret, _ := strings.Cut(place, " ")
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, secret); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		conn.Close()
		return "", err
	}
	held = append(held, conn)
	return strings.TrimSpace(line), nil
}

// keep starts the server, tells its address to every process that knows the secret, and stops it when none has held on
// for a while.
func keep() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := localpg.Start(ctx, localpg.Options{Config: map[string]string{"max_connections": "300"}})
	if err != nil {
		return err
	}
	defer server.Stop()
	admin := server.URL("postgres")
	if err := execute(admin, "CREATE DATABASE "+booksTemplate); err != nil {
		return err
	}
	if err := execute(server.URL(booksTemplate), penny.SQL); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	secret := rand.Text()
	place := listener.Addr().String() + " " + secret
	if err := leaveNote(place); err != nil {
		return err
	}
	defer func() {
		if left, err := os.ReadFile(note()); err == nil && string(left) == place {
			os.Remove(note())
		}
	}()

	var (
		mu      sync.Mutex // protects holders
		holders int
		idle    = make(chan struct{}, 1)
	)
	change := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		if holders += by; holders == 0 {
			select {
			case idle <- struct{}{}:
			default:
			}
		}
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				if line, err := reader.ReadString('\n'); err != nil || strings.TrimSpace(line) != secret {
					return
				}
				change(1)
				defer change(-1)
				if _, err := fmt.Fprintln(conn, admin); err != nil {
					return
				}
				_, _ = reader.ReadString('\n') // nothing comes: it ends when the process at the other end does
			}()
		}
	}()
	fmt.Printf("ready %s\n", place)
	idle <- struct{}{} // the process that waits for us may have gone
	for {
		select {
		case <-server.Done():
			return errors.New("the tests' PostgreSQL ended by itself")
		case <-idle:
		}
		select {
		case <-server.Done():
			return errors.New("the tests' PostgreSQL ended by itself")
		case <-time.After(linger):
		}
		mu.Lock()
		over := holders == 0
		if over {
			listener.Close() // under the lock: who dials now finds nobody, and starts a keeper
		}
		mu.Unlock()
		if over {
			return nil
		}
	}
}

// leaveNote writes the note in one step, readable by this user alone.
func leaveNote(place string) error {
	draft, err := os.CreateTemp(filepath.Dir(note()), "penny-pgtest-draft-*")
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.WriteString(place)
	if err := errors.Join(err, draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), note())
}

package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/penny"
	"example.com/penny/internal/localpg"
)

// The tests' server belongs to a child process, which is the test program again. It stops the server and removes its
// folder when its standard input ends: when the test process has ended, however that came.

// childVariable in the environment makes a test program the server's process; it names PostgreSQL's programs.
const childVariable = "PENNY_PGTEST_PROGRAMS"

func init() {
	bin := os.Getenv(childVariable)
	if bin == "" {
		return
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // Ctrl-C is for the tests; we end after them
	if err := serve(bin); err != nil {
		fmt.Printf("error %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	os.Exit(0)
}

// serve starts a server, prints its address, and stops it when standard input ends.
func serve(bin string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	server, err := localpg.Start(ctx, localpg.Options{BinDir: bin, Config: map[string]string{"max_connections": "300"}})
	if err != nil {
		return err
	}
	defer server.Stop()
	if err := execute(server.URL("postgres"), "CREATE DATABASE "+booksTemplate); err != nil {
		return err
	}
	if err := execute(server.URL(booksTemplate), penny.SQL); err != nil {
		return err
	}
	fmt.Printf("ready %s\n", server.URL("postgres"))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// programs is the folder with PostgreSQL's programs. A download may take long, but one that fails is not tried again by the
// other packages of the same go test.
var programs = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	run := fmt.Sprint("go test, process ", os.Getppid(), time.Now().Truncate(10*time.Minute)) // containers use process IDs again
	return localpg.Find(ctx, localpg.Search{Once: run})
})

// held has the child's standard input, open for as long as this process lives.
var held []io.Closer

// sharedServer is the address of the server that this process's tests share.
var sharedServer = sync.OnceValues(func() (string, error) {
	bin, err := programs()
	if err != nil {
		return "", err
	}
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	child := exec.Command(program)
	child.Env = append(os.Environ(), childVariable+"="+bin)
	child.Dir = os.TempDir()
	stdin, err := child.StdinPipe()
	if err != nil {
		return "", err
	}
	held = append(held, stdin)
	// Not this process's own output: go test waits until nobody holds it.
	out, err := child.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(); err != nil {
		return "", fmt.Errorf("start the tests' PostgreSQL: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ready {
		return "", fmt.Errorf("start the tests' PostgreSQL: %s (%v)", strings.TrimSpace(line), err)
	}
	return address, nil
})

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

// The tests' server belongs to a child process, which is the test program again: a test program cannot run anything after its
// last test. The child stops the server and removes its folder when its standard input ends, as it does when the test process
// exits or is killed.

// childVariable is an environment variable that makes a test program the child. It names the folder of PostgreSQL's programs.
const childVariable = "PENNY_PGTEST_PROGRAMS"

func init() {
	bin := os.Getenv(childVariable)
	if bin == "" {
		return
	}
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) // Ctrl-C is for the tests; the child ends after them
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
	o := localpg.Options{BinDir: bin, TempDir: memory()}
	original, err := localpg.Make(ctx, o)
	if err != nil {
		return err
	}
	defer original.Stop()
	o.CopyOf, o.Config = original.Folder(), map[string]string{"max_connections": "150"}
	server, err := localpg.Start(ctx, o)
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
	fmt.Printf("ready %s %s\n", server.URL("postgres"), original.Folder())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// programs returns the folder with PostgreSQL's programs. A download may take long, but if it fails, the other packages of the
// same go test do not try it again.
var programs = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	run := fmt.Sprint("go test, process ", os.Getppid(), time.Now().Truncate(10*time.Minute)) // a container reuses process IDs
	return localpg.Find(ctx, localpg.Search{Once: run})
})

// held has the child's standard input, open for as long as this process lives.
var held []io.Closer

// A child is the process with the server that this process's tests share.
type child struct {
	address  string // of the server's own database, with an administrator's rights
	original string // the folder of a server that never ran; servers for one test are copies of it
}

// shared starts the child.
var shared = sync.OnceValues(func() (*child, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childVariable+"="+bin)
	cmd.Dir = os.TempDir()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	held = append(held, stdin)
	// It does not inherit our output, because go test waits until all processes have closed that.
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the tests' PostgreSQL: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	line = strings.TrimSpace(line)
	rest, ready := strings.CutPrefix(line, "ready ")
	if !ready {
		return nil, fmt.Errorf("start the tests' PostgreSQL: %s (%v)", line, err)
	}
	address, original, _ := strings.Cut(rest, " ")
	return &child{address, original}, nil
})

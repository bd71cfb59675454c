package pgtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEachTestHasADatabaseOfItsOwnWhichIsDroppedAfterIt(t *testing.T) {
	var name string
	t.Run("inside", func(t *testing.T) {
		first, second := BooksURL(t), URL(t)
		Exec(t, first, "DELETE FROM books")
		books, tables := -1, -1
		Query(t, BooksURL(t), "SELECT count(*) FROM books", &books)
		Query(t, second, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &tables)
		if books != 3 || tables != 0 {
			t.Errorf("another test's database has %d books, an empty one %d tables", books, tables)
		}
		Query(t, first, "SELECT current_database()", &name)
	})
	left := -1
	Query(t, Admin(t), "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'", &left)
	if left != 0 {
		t.Errorf("the database %s is left", name)
	}
}

// TestHold is what the test below kills.
func TestHold(t *testing.T) {
	if os.Getenv("PENNY_PGTEST_HOLD") == "" {
		t.Skip("TestAKilledTestProcessLeavesNothing runs it")
	}
	Admin(t)
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
}

func TestAKilledTestProcessLeavesNothing(t *testing.T) {
	Admin(t)
	folder := Folder(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestHold$")
	cmd.Env = append(os.Environ(), "PENNY_PGTEST_HOLD=1", "TMPDIR="+folder, "TMP="+folder)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	left := func() int {
		files, _ := filepath.Glob(filepath.Join(folder, "penny-*-*")) // the pattern is a good one
		return len(files)
	}
	if line != "ready\n" || left() != 1 {
		t.Errorf("it says %q and has %d folders, %v", line, left(), err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	Eventually(t, 30*time.Second, "its server's folder is gone", func() bool { return left() == 0 })
}

func TestTheUsersOwnSettingsAreForgotten(t *testing.T) {
	for _, setting := range os.Environ() {
		if strings.HasPrefix(setting, "PG") {
			t.Errorf("%.6s… is still set", setting)
		}
	}
}

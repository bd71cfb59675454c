package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEachTestHasItsOwnDatabaseWhichIsDroppedAfterIt(t *testing.T) {
	var name string
	t.Run("inside", func(t *testing.T) {
		first, second := BooksURL(t), URL(t)
		Exec(t, first, "DELETE FROM books")
		books, tables := -1, -1
		Query(t, BooksURL(t), "SELECT count(*) FROM books", &books)
		Query(t, second, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &tables)
		if books != 3 || tables != 0 {
			t.Errorf("another test's database has %d books and an empty one %d tables, want 3 and 0", books, tables)
		}
		Query(t, first, "SELECT current_database()", &name)
	})
	left := -1
	Query(t, Admin(t), "SELECT count(*) FROM pg_database WHERE datname = '"+name+"'", &left)
	if left != 0 {
		t.Errorf("the database %s is left", name)
	}
}

// TestHold runs in the process that the test below kills.
func TestHold(t *testing.T) {
	if os.Getenv("PENNY_PGTEST_HOLD") == "" {
		t.Skip("TestAKilledTestProcessLeavesNothing runs it")
	}
	data := ""
	Query(t, Admin(t), "SELECT current_setting('data_directory')", &data)
	fmt.Println(theChild(t).original)
	fmt.Println(filepath.Dir(data))
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
}

func TestAKilledTestProcessLeavesNothing(t *testing.T) {
	Admin(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestHold$")
	cmd.Env = append(os.Environ(), "PENNY_PGTEST_HOLD=1")
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
	var folders []string
	for lines := bufio.NewScanner(out); len(folders) < 2 && lines.Scan(); {
		folders = append(folders, lines.Text())
		if _, err := os.Stat(lines.Text()); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if len(folders) != 2 {
		t.Fatalf("got the folders %q, want 2", folders)
	}
	Eventually(t, 30*time.Second, "its servers' folders are gone", func() bool {
		for _, folder := range folders {
			if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
				return false
			}
		}
		return true
	})
}

func TestTheUsersSettingsForPostgreSQLAreRemoved(t *testing.T) {
	if os.Getenv("PENNY_PGTEST_SETTINGS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "PENNY_PGTEST_SETTINGS=1", "PGHOST=nowhere", "PGPASSWORD=secret")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with PGHOST and PGPASSWORD: %v: %s", err, out)
		}
		return
	}
	for _, setting := range os.Environ() {
		if strings.HasPrefix(setting, "PG") {
			t.Errorf("%.6s… is still set", setting)
		}
	}
}

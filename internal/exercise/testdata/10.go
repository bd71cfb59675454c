package page

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"example.com/penny/internal/exercise/given"
)

func TestExercise(t *testing.T) {
	db, file := given.SQLite(t)
	folder := filepath.Dir(file)
	_, err := db.Exec(`WITH RECURSIVE n(n) AS (SELECT 9000 UNION ALL SELECT n + 1 FROM n WHERE n < 9149)
		INSERT INTO books SELECT n, 'Sedgewick', 'Graphs' FROM n`)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "pennyapp.exe")
	if out, err := exec.Command("go", "build", "-o", program, "./pennyapp").CombinedOutput(); err != nil {
		t.Fatalf("it does not compile: %s", out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	listener.Close()
	_, port, _ := net.SplitHostPort(host)
	app := exec.Command(program)
	app.Dir = folder
	app.Env = append(os.Environ(), "PORT="+port, "DATABASE_URL=sqlite:///"+filepath.ToSlash(file))
	var says bytes.Buffer
	app.Stderr = &says
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		app.Process.Kill()
		app.Wait()
	})
	defer stop()
	started := false
	for range 200 {
		if status, _ := get("http://" + host + "/healthz"); status == http.StatusOK {
			started = true
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !started {
		stop()
		t.Fatalf("pennyapp does not start: %s", cmp.Or(regexp.MustCompile(`panic: .*`).FindString(says.String()), says.String()))
	}
	status, body := get("http://" + host + "/books")
	if status != http.StatusOK {
		t.Fatalf("/books answers with the status %d, want 200", status)
	}
	for _, title := range []string{"Algorithms in C", "The Practice of Programming"} {
		if !strings.Contains(body, title) {
			t.Fatalf("/books does not have %s", title)
		}
	}
	if n := strings.Count(body, "Graphs"); n > 97 { // and the three of penny.sql
		t.Fatal("/books shows more than a hundred books")
	}
	if status, _ := get("http://" + host + "/searchresults?author=ker"); status != http.StatusOK {
		t.Fatalf("the search answers with the status %d, want 200", status)
	}
}

var client = http.Client{Timeout: 5 * time.Second}

func get(address string) (int, string) {
	response, err := client.Get(address)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

package books

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"example.com/penny"
)

// Create makes the SQLite file with the three books in it. If the file exists, Create leaves it as it is.
func Create(file string) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, rest := range []string{file + "-journal", file + "-wal"} { // SQLite would write what they hold into the new file
		if _, err := os.Lstat(rest); err == nil {
			return fmt.Errorf("make %s: %s is left from a deleted database", file, rest)
		}
	}
	// The file gets its name when it is complete, so that a program that is stopped does not leave half a database.
	folder, err := os.MkdirTemp(filepath.Dir(file), ".penny-*")
	if err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	defer os.RemoveAll(folder)
	draft := filepath.Join(folder, "penny.sqlite")
	if err := fill(draft); err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	// Unlike os.Rename, os.Link does not replace a file that another program has made in the meantime.
	if err = os.Link(draft, file); errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil { // some disks, such as USB sticks, have no links
		err = os.Rename(draft, file)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	return nil
}

// fill loads penny.sql into a new SQLite file.
func fill(file string) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.ToSlash(file)}).EscapedPath()) // a plain name is cut at a ?
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(penny.SQL); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	return db.Close()
}

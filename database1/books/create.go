package books

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"example.com/penny"
	"example.com/penny/internal/dburl"
)

// Create makes the SQLite file at url with the three books in it. A file that is there already is left as it is.
func Create(ctx context.Context, url string) error {
	file, err := dburl.File(url)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The file gets its name when it is complete: who is stopped half-way leaves no half of a database.
	folder, err := os.MkdirTemp(filepath.Dir(file), ".penny-*")
	if err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	defer os.RemoveAll(folder)
	draft := filepath.Join(folder, "penny.sqlite")
	if err := fill(ctx, draft); err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	if err := os.Rename(draft, file); err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	return nil
}

// fill loads penny.sql into a new SQLite file.
func fill(ctx context.Context, file string) error {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, penny.SQL); err != nil {
		return fmt.Errorf("load penny.sql: %w", err)
	}
	return db.Close()
}

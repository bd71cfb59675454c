// Package nplusone is for exercise 16.
package nplusone

import (
	"context"

	"gorm.io/gorm"
)

// An Author has books.
type Author struct {
	ID    int
	Name  string
	Works []Work
}

// A Work is a book of an author.
type Work struct {
	ID       int
	AuthorID int
	Title    string
}

// Authors returns the first authors by name, at most limit of them, with their works.
func Authors(ctx context.Context, db *gorm.DB, limit int) ([]Author, error) {
	authors, err := gorm.G[Author](db).Order("name").Limit(limit).Find(ctx)
	if err != nil {
		return nil, err
	}
	for i := range authors {
		authors[i].Works, err = gorm.G[Work](db).Where("author_id = ?", authors[i].ID).Order("id").Find(ctx)
		if err != nil {
			return nil, err
		}
	}
	return authors, nil
}

SELECT isbn FROM books
ORDER BY isbn

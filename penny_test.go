package penny_test

import (
	"fmt"

	"example.com/penny"
)

func ExamplePrefix() {
	fmt.Println(penny.Prefix("Ker"))
	fmt.Println(penny.Prefix("100%"))
	// Output:
	// Ker%
	// 100\%%
}

func ExampleBook_String() {
	fmt.Print(penny.Book{ISBN: "234", Author: "Kernighan", Title: "The C Programming Language"})
	// Output:
	// 234
	// Kernighan
	// The C Programming Language
}

// Command main counts the books, over Penny's pool. It is for exercise 17.
package main

func main() {
}

package main

import "runtime"

func main() { println("hello from", runtime.GOOS, runtime.GOARCH) }

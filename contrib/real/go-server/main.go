// Answers every request with who it is and who asks.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
)

var version = "unknown"

func answer(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "whoami %s uid=%d path=%s\n", version, os.Getuid(), r.URL.Path)
}

func main() {
	listen := flag.String("listen", ":8080", "where to listen")
	ask := flag.String("ask", "", "ask a server instead")
	flag.Parse()
	if *ask == "" {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(*listen, http.HandlerFunc(answer)))
		os.Exit(1)
	}
	response, err := http.Get(*ask)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	io.Copy(os.Stdout, response.Body)
}

// Command hello starts a kernel thread, which greets, and waits for its end.
package main

import (
	"fmt"
	"log"
	"os"

	"lwprt/lwp"
)

type greeting struct{ to string }

// hello runs on a thread that the Go runtime does not know: no fmt here.
func hello(g *greeting) {
	var l lwp.Line
	l.Str("thread: hello ").Str(g.to).Str(", I am TID ").Int(int64(lwp.Self().TID())).Print()
}

func main() {
	fmt.Println("main: process", os.Getpid())
	t, err := lwp.Start(hello, &greeting{"world"})
	if err != nil {
		log.Fatal(err)
	}
	tid := t.TID() // the handle is good until Join
	if err := t.Join(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("main: TID", tid, "has ended")
}

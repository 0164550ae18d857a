//go:build !race

package lwp_test

import (
	"fmt"
	"strings"

	"lwprt/lwp"
)

// A guest is what a thread asks of the Go side, and what it gets.
type guest struct {
	name     [16]byte
	n        int
	greeting [32]byte
	length   int
}

// A thread calls a function that needs the Go runtime.
func ExampleHandler() {
	greet, err := lwp.NewHandler(func(g *guest) { // on a goroutine
		g.length = copy(g.greeting[:], "hello "+strings.ToUpper(string(g.name[:g.n])))
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer greet.Close()
	t, err := lwp.Start(func(h *lwp.Handler[guest]) { // on a thread
		var g guest
		g.n = copy(g.name[:], "world")
		if h.Call(&g) != nil || g.length == 0 {
			lwp.Abort("nobody is home")
		}
	}, greet)
	if err != nil {
		fmt.Println(err)
		return
	}
	<-t.Done()
	fmt.Println(t.Join())

	g := guest{n: 2}
	copy(g.name[:], "go")
	fmt.Println(greet.Call(&g), string(g.greeting[:g.length])) // goroutines can call it too
	// Output:
	// <nil>
	// <nil> hello GO
}

type stream struct{ r *lwp.Ring[int] }

// A thread sends what a goroutine receives.
func ExampleRing() {
	r, err := lwp.NewRing[int](4, lwp.SPSC)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Free()
	t, err := lwp.Start(func(s *stream) {
		for i := range 10 {
			if s.r.Send(i*i) != nil { // waits where the ring is full
				return
			}
		}
		s.r.Close()
	}, &stream{r})
	if err != nil {
		fmt.Println(err)
		return
	}
	sum := 0
	for {
		n, err := r.Recv()
		if err != nil { // closed, and nothing left
			break
		}
		sum += n
	}
	fmt.Println(sum, t.Join())
	// Output: 285 <nil>
}

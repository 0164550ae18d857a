// Command linked is built in every way in which Go places thread-local storage:
// the g slot must be where the assembler thinks it is. It prints what it has
// found.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/tls"
)

type result struct {
	key     tls.Key[string]
	ok      bool
	text    string
	g, slot uintptr
	self    lwp.Thread
	depth   int
}

var texts = [1]string{"value"}

//go:noinline
func deep(n int) int {
	if n == 0 {
		return 0
	}
	return deep(n-1) + 1 // compares SP with g.stackguard0
}

func body(r *result) {
	t := tls.Current()
	r.ok = t != nil && r.key.Set(texts[0]) == nil
	if s, set := r.key.Get(); set {
		r.ok = r.ok && s == texts[0]
	}
	r.g, r.self, r.depth = asm.Getg(), lwp.Self(), deep(500)
	if t != nil {
		r.slot = t.Self
	}
}

func main() {
	// With the C library linked in this goes through it, on its threads.
	addrs, err := net.LookupHost("127.0.0.1")
	if err != nil || len(addrs) == 0 {
		fail("lookup: ", err)
	}
	destroyed := 0
	key, err := tls.NewKey(func(*string) { destroyed++ })
	if err != nil {
		fail(err)
	}
	const n = 200
	for range n {
		g := asm.Getg()
		r := &result{key: key}
		th, err := lwp.Start(body, r)
		if err != nil {
			fail("start: ", err)
		}
		if err := th.Join(); err != nil {
			fail("join: ", err)
		}
		if asm.Getg() != g {
			fail("the goroutine's g has changed")
		}
		if !r.ok || r.self != th || r.depth != 500 || r.g <= r.slot || r.g > r.slot+4096 {
			fail(fmt.Sprintf("%+v", *r))
		}
		if tls.Current() != nil {
			fail("a goroutine has a TCB")
		}
		runtime.GC()
	}
	if destroyed != n {
		fail(destroyed, " destructors")
	}
	fmt.Println("fine, g slot at", asm.TLSOffset())
}

func fail(a ...any) {
	fmt.Fprintln(os.Stderr, a...)
	os.Exit(1)
}
